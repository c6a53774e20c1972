"""``make whole-soak``: everything runs, everything is killed in turn, and nothing may be missing.

A receiver, Dagster and a warehouse under a steady load with repeats and malformed bodies. One after
another each process is killed, the warehouse goes away, the disk is filled, the clock jumps. At the
end every acknowledged body must be landed, every event must be one row, and ``verify --deep`` must
find no gap. Prints a Markdown report and ends with 1 where any of it does not hold.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import pyarrow.parquet as pq

from campaigns.running_pipeline import SCHEMA, Pipeline, Postgres, wait_until
from campaigns.sender import Sender
from customerio_pipeline.simulator.events import generate

_HOME_MIB = 768
_OUTAGE_SECONDS = 20.0
_REST_SECONDS = 10.0
_PATIENCE_SECONDS = 180.0
_JUMPS = ("+2h", "-1h")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to the installation, and how it is over."""

    name: str
    begin: Callable[[], object]
    seconds: float = 0.0
    end: Callable[[], object] = lambda: None


@click.command()
@click.option("--minutes", type=click.FloatRange(min=1), default=20.0, show_default=True)
@click.option("--rate", default=40.0, show_default=True, help="Events a second.")
@click.option(
    "--warehouse", type=click.Choice(["duckdb", "postgresql"]), default="postgresql",
    show_default=True,
)  # fmt: skip
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile.",
)
def main(*, minutes: float, rate: float, warehouse: str, seed: int, folder: Path) -> None:
    """Soak the whole pipeline."""
    folder.mkdir(parents=True, exist_ok=True)
    # Another user runs the server where we are root, and must be able to enter.
    place = Path(tempfile.mkdtemp(prefix="customerio-soak-"))
    place.chmod(0o755)
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir=folder.absolute()) as temporary,
        _small_disk(Path(temporary) / "home") as home,
    ):
        server = Postgres(place) if warehouse == "postgresql" else None
        pipeline = Pipeline(
            home,
            Path(temporary) / "logs",
            server.url if server else None,
            Path(temporary) / "clock",
        )
        try:
            soak = _Soak(pipeline, server, rate, random.Random(seed))  # noqa: S311  seeded
            wrong = asyncio.run(soak.run(minutes * 60, seed))
        finally:
            pipeline.stop()
            if server:
                server.kill()
    if wrong:
        sys.exit(1)


class _Soak:
    """The load, the troubles, and what is left of them."""

    def __init__(
        self, pipeline: Pipeline, server: Postgres | None, rate: float, chance: random.Random
    ) -> None:
        self._pipeline = pipeline
        self._server = server
        self._rate = rate
        self._chance = chance
        self._sender = Sender(pipeline.port, f"/v1/webhooks/{pipeline.token}")
        self._times: Counter[str] = Counter()
        self._longest: dict[str, float] = {}
        self._wrong: list[str] = []

    async def run(self, seconds: float, seed: int) -> list[str]:
        """Soak for so long; print the report and return what is wrong."""
        began = time.monotonic()
        stopping = asyncio.Event()
        events = generate(seed, malformed=0.01, now=time.time)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sender.run(events, self._rate, stopping))
            await self._until(self._has_rows, "the first row")
            for trouble in _in_turn(self._troubles(), self._chance):
                if time.monotonic() - began > seconds:
                    break
                await self._suffer(trouble)
                await asyncio.sleep(_REST_SECONDS)
            stopping.set()
        sent_for = time.monotonic() - began
        caught_up = await self._until(self._is_loaded, "all loaded")
        await asyncio.to_thread(self._judge)
        self._report(sent_for, caught_up)
        return self._wrong

    def _troubles(self) -> list[Trouble]:
        pipeline = self._pipeline
        services = pipeline.services
        troubles = [
            *(
                Trouble(f"{kind} killed", partial(self._kill_children, kind))
                for kind in ("worker", "sealer", "admin")
            ),
            *(
                Trouble(f"{name} killed, with all it started", services[name].kill)
                for name in services
            ),
            Trouble("load run killed", lambda: _kill(pipeline.load_runs())),
            Trouble("workers replaced (SIGHUP)", self._replace_workers),
        ]
        if self._server:
            troubles.append(
                Trouble(
                    "PostgreSQL killed and away",
                    self._server.kill,
                    _OUTAGE_SECONDS,
                    self._server.start,
                )
            )
        if os.path.ismount(pipeline.home):
            filler = pipeline.home / "filler"
            troubles.append(
                Trouble("disk full", lambda: _fill(filler), _OUTAGE_SECONDS, filler.unlink)
            )
        if pipeline.has_clock:
            troubles += [
                Trouble(
                    f"receiver's clock {jump}",
                    partial(pipeline.set_clock, jump),
                    _OUTAGE_SECONDS,
                    lambda: pipeline.set_clock("+0"),
                )
                for jump in _JUMPS
            ]
        return troubles

    async def _suffer(self, trouble: Trouble) -> None:
        """Let it happen; wait until events are acknowledged again."""
        self._times[trouble.name] += 1
        click.echo(f"{time.strftime('%H:%M:%S')} {trouble.name}", err=True)
        began = time.monotonic()
        await asyncio.to_thread(trouble.begin)
        longest = await self._longest_silence(began, trouble.seconds)
        await asyncio.to_thread(trouble.end)
        ended = time.monotonic()
        await self._until(
            lambda: self._sender.last_at > ended, f"acknowledged after {trouble.name}"
        )
        longest = max(longest, time.monotonic() - ended)
        self._longest[trouble.name] = max(longest, self._longest.get(trouble.name, 0))

    async def _longest_silence(self, began: float, seconds: float) -> float:
        """Return the longest time without an acknowledgement until `seconds` after `began`."""
        longest = 0.0
        while (now := time.monotonic()) < began + seconds:
            longest = max(longest, now - max(self._sender.last_at, began))
            await asyncio.sleep(0.05)
        return longest

    def _kill_children(self, kind: str) -> None:
        _kill(self._pipeline.children(kind))

    def _replace_workers(self) -> None:
        os.kill(self._pipeline.services["receiver"].pid, signal.SIGHUP)

    def _has_rows(self) -> bool:
        return self._status().get("rows", 0) > 0

    def _is_loaded(self) -> bool:
        status = self._status()
        return status.get("waiting") == 0 and status.get("landed", 0) >= self._acknowledged

    @property
    def _acknowledged(self) -> int:
        return self._sender.acknowledged.total()

    def _status(self) -> dict[str, int]:
        """Return what `status` says; nothing while it cannot."""
        with suppress(ValueError):
            [found] = json.loads(self._pipeline.cli("status", "--json").stdout)
            return dict(found)
        return {}

    async def _until(self, condition: Callable[[], bool], what: str) -> float:
        return await asyncio.to_thread(wait_until, condition, what, _PATIENCE_SECONDS)

    def _judge(self) -> None:
        """Compare what was acknowledged with landing and table, and ask `verify`."""
        landed: Counter[bytes] = Counter()
        for path in (self._pipeline.home / "landing").glob("integration=*/date=*/hour=*/*.parquet"):
            with pq.ParquetFile(path) as file:
                landed.update(file.read(columns=["body"])["body"].to_pylist())
        sender = self._sender
        lost = sum((sender.acknowledged - landed).values())
        invented = sum((landed - sender.sent).values())
        query = f"SELECT event_id FROM {SCHEMA}.data"  # noqa: S608  a name of ours
        answer = self._pipeline.cli(
            "query",
            query,
            "--json",
        )
        rows = [row["event_id"] for row in json.loads(answer.stdout)]
        for what, count in (
            ("acknowledged deliveries are not landed", lost),
            ("landed deliveries were never sent", invented),
            ("acknowledged events have no row", len(sender.event_ids - set(rows))),
            ("events have more than one row", len(rows) - len(set(rows))),
        ):
            if count:
                self._wrong.append(f"{count} {what}")
        proof = self._pipeline.cli("verify", "--deep")
        self._proof = proof.stdout.strip().splitlines()[-1:] or [proof.stderr.strip()]
        if proof.returncode:
            self._wrong.append(f"verify --deep: {proof.stdout[-2000:]}{proof.stderr[-500:]}")
        self._rows = len(rows)
        self._landed = landed.total()

    def _report(self, sent_for: float, caught_up: float) -> None:
        sender = self._sender
        answers = ", ".join(f"{count:,} x {name}" for name, count in sender.answers.most_common())
        summary = (
            f"{sent_for / 60:.1f} minutes, {self._rate:.0f} events a second;"
            f" {self._times.total()} troubles."
        )
        outcome = (
            f"- {self._acknowledged:,} deliveries acknowledged, {self._landed:,} landed,"
            f" {self._rows:,} rows; all loaded {caught_up:.0f} s after the last."
        )
        lines = [summary, "", "| trouble | times | longest without an acknowledgement |"]
        lines += ["|---|---|---|"]
        lines += [
            f"| {name} | {times} | {self._longest[name]:.1f} s |"
            for name, times in self._times.items()
        ]
        lines += ["", f"- Answers: {answers}.", outcome]
        lines += [f"- `verify --deep`: {line}" for line in self._proof]
        lines += [f"- WRONG: {line}" for line in self._wrong]
        for line in lines:
            click.echo(line)


def _in_turn(troubles: list[Trouble], chance: random.Random) -> Iterator[Trouble]:
    """Yield every trouble in a random order, again and again."""
    while True:
        chance.shuffle(troubles)
        yield from troubles


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _fill(filler: Path) -> None:
    """Leave no byte on the disk."""
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))


@contextmanager
def _small_disk(home: Path) -> Iterator[Path]:
    """Make a folder on a disk of its own, where that is permitted."""
    home.mkdir()
    options = f"size={_HOME_MIB}m"
    is_mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", home],  # noqa: S607
        capture_output=True,
        check=False,
    ).returncode
    try:
        yield home
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", home], check=False)  # noqa: S607


if __name__ == "__main__":
    main()
