"""``make soak``: the receiver at half of its greatest rate, and whether it stays as it is.

Prints what each process holds over time, and a verdict: memory flat, no file descriptor leaked,
everything acknowledged landed once. Ends with 1 when one of them does not hold.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.installation import forget_settings
from benchmarks.load_generator import OK
from benchmarks.receiver_servers import Receiver, receiver_as_started
from benchmarks.requests import NUMBER_DIGITS, NUMBER_KEY, write_numbered_requests
from benchmarks.steady_load import Fate, Interval

_CONNECTIONS = 64
_TRIAL_SECONDS = 10.0
_WARM_UP = 0.1
"""Share of the time in which caches and pools may fill."""

_SAMPLES = 60
_GROWTH_MB = 20.0
"""Above the spread that garbage collection and allocators make anyway."""

_GROWTH_DESCRIPTORS = 5


class Held(NamedTuple):
    """What the processes of a receiver hold together."""

    rss_mb: float
    descriptors: int


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60.0, show_default=True)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile.",
)
def main(minutes: float, folder: Path) -> None:
    """Load a receiver steadily and watch it."""
    forget_settings()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-", dir=folder.absolute()) as temporary:
        wrong = _soak(Path(temporary), minutes * 60)
    click.echo("\n".join(f"- {line}" for line in wrong) or "Nothing wrong.")
    if wrong:
        sys.exit(1)


def _soak(folder: Path, seconds: float) -> list[str]:
    home = folder / "home"
    # Its log, at a line a request, would be most of what is written.
    with receiver_as_started(home, CUSTOMERIO_ACCESS_LOG="false") as receiver:
        cell = receiver.measure(_CONNECTIONS, _TRIAL_SECONDS, folder)
        rate = cell.load.acks_per_second / 2
        click.echo(
            f"{seconds / 60:g} minutes at {rate:.0f} requests/s, half of what one worker"
            f" acknowledged with {_CONNECTIONS} connections.\n"
        )
        click.echo(
            "| minute | acks/s | p50, ms | p99, ms | RSS of all processes, MB | descriptors |"
        )
        click.echo("|---|---|---|---|---|---|")
        held: list[Held] = []
        answers: dict[int, int] = {}
        for interval in _load(receiver, folder, rate, seconds):
            held.append(_held(receiver.server.process.pid))
            for status, count in interval.answers.items():
                answers[status] = answers.get(status, 0) + count
            click.echo(
                f"| {interval.seconds / 60:.1f} | {interval.acks_per_second:.0f}"
                f" | {interval.p50_ms:.1f} | {interval.p99_ms:.1f}"
                f" | {held[-1].rss_mb:.0f} | {held[-1].descriptors} |"
            )
        receiver.wait_landed(answers.get(OK, 0))
    click.echo(f"\nAnswers by status (0: none): {answers}.")
    return [*_growth(held), *_missing(home / "landing", (folder / "fates").read_bytes())]


def _load(receiver: Receiver, folder: Path, rate: float, seconds: float) -> Iterator[Interval]:
    """Yield what came of each part of the load, the warm-up first."""
    requests = folder / "numbered"
    write_numbered_requests(requests, receiver.installation.path)
    command = [sys.executable, "-m", "benchmarks.steady_load", str(receiver.server.port)]
    command += [str(requests), str(rate), str(seconds * (1 - _WARM_UP)), str(seconds * _WARM_UP)]
    command += [str(seconds / _SAMPLES), str(folder / "fates")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
        try:
            for line in load.stdout or ():
                yield msgspec.json.decode(line, type=Interval)
        finally:
            load.terminate()


def _held(parent: int) -> Held:
    pids = [parent, *_children(parent)]
    rss = 0
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        rss += int(status.partition("VmRSS:")[2].split()[0])
    descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    return Held(rss / 1024, descriptors)


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]


def _growth(held: Sequence[Held]) -> list[str]:
    """Compare the first third after the warm-up with the last one, by their greatest."""
    third = max(1, len(held) // 3)
    first, last = held[1 : third + 1], held[-third:]
    wrong = []
    if not first:
        return ["too short to tell anything"]
    grown = max(one.rss_mb for one in last) - max(one.rss_mb for one in first)
    if grown > _GROWTH_MB:
        wrong.append(f"memory grew by {grown:.0f} MB from the first to the last third")
    leaked = max(one.descriptors for one in last) - max(one.descriptors for one in first)
    if leaked > _GROWTH_DESCRIPTORS:
        wrong.append(f"{leaked} descriptors more in the last third than in the first")
    return wrong


def _missing(landing: Path, fates: bytes) -> list[str]:
    """Compare the numbers in landing with what became of each."""
    landed = bytearray(len(fates))
    double = unknown = 0
    start = len(NUMBER_KEY)
    for path in landing.glob("*/*/*/*.parquet"):
        bodies = pq.read_table(path, columns=["body"], partitioning=None)["body"]
        numbers = pc.binary_slice(bodies, start, start + NUMBER_DIGITS)
        heads = pc.binary_slice(bodies, 0, start)
        for head, digits in zip(heads.to_pylist(), numbers.to_pylist(), strict=True):
            if head != NUMBER_KEY:
                continue  # of the trial
            number = int(digits)
            if number >= len(fates):
                unknown += 1
                continue
            double += landed[number]
            landed[number] = 1
    lost = sum(fate == Fate.ACKED and not found for fate, found in zip(fates, landed, strict=True))
    acked = fates.count(Fate.ACKED)
    click.echo(f"{len(fates)} sent, {acked} acknowledged, {sum(landed)} landed.\n")
    return [
        f"{count} {what}"
        for count, what in (
            (lost, "acknowledged and lost"),
            (double, "landed twice"),
            (unknown, "landed and never sent"),
        )
        if count
    ]


if __name__ == "__main__":
    main()
