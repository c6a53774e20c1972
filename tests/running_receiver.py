"""A receiver as a user starts it, and what it landed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pyarrow.parquet as pq

from customerio_pipeline.registry.records import NewUrl
from customerio_pipeline.registry.registry import Registry
from tests.leaked_secrets import leaked_secrets

# A busy machine is slow; nothing waits this long when all is well.
PATIENCE_SECONDS = 60.0

_COMMAND = str(Path(sys.executable).with_name("customerio-pipeline"))

Result = TypeVar("Result")
LandedRow = dict[str, Any]


def wait_until(probe: Callable[[], Result], what: str) -> Result:
    """Return the first true result of `probe`, or fail saying what did not happen."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not (result := probe()):
        assert time.monotonic() < give_up_at, f"timed out: {what}"
        time.sleep(0.02)
    return result


class Receiver:
    """The command ``customerio-pipeline receiver``; `settings` become its environment."""

    def __init__(
        self, home: Path, *options: str, pass_fds: Sequence[int] = (), **settings: object
    ) -> None:
        """Start the command; the log of an earlier one in `home` is continued."""
        # A connection of its own for each request, so that none dies with a worker. To load
        # certificates would take longer than a test.
        self.http = httpx.Client(
            headers={"connection": "close"},
            verify=False,  # noqa: S501
            timeout=PATIENCE_SECONDS,
        )
        self.home = home
        self.landing = home / "landing"
        self._log = home / "receiver.log"
        self._earlier_log = self._log.stat().st_size if self._log.exists() else 0
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("CUSTOMERIO_")
        }
        # A process less to start: tests of the admin port set it.
        settings = {"admin_port": "off"} | settings
        given = {f"CUSTOMERIO_{name.upper()}": str(value) for name, value in settings.items()}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [_COMMAND, "receiver", *(options or ["--port=0"])],
                env=clean | {"CUSTOMERIO_HOME": str(home)} | given,
                cwd=home,
                stdout=log,
                stderr=log,
                pass_fds=tuple(pass_fds),
                umask=0o022,
            )

    @property
    def output(self) -> str:
        """All that the command and its processes printed."""
        return self._log.read_bytes()[self._earlier_log :].decode()

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of the log with this event and these fields."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.endswith("}")]
        return [line for line in lines if {"event": event, **fields}.items() <= line.items()]

    def wait_logged(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for such a line."""
        return wait_until(lambda: self.logged(event, **fields), f"log line {event} {fields}")[0]

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.wait_logged("listening")["port"]
        return port

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> httpx.Response:
        """Ask whether it is ready."""
        return self.http.get(f"{self.base_url}/health/ready")

    def wait_ready(self) -> None:
        """Wait until deliveries are taken."""
        wait_until(lambda: self.readiness().status_code == 200, "receiver is ready")

    def post(self, token: str, body: bytes = b"{}", **headers: str) -> httpx.Response:
        """Send one delivery."""
        url = f"{self.base_url}/v1/webhooks/{token}"
        return self.http.post(url, content=body, headers=headers)

    def post_until(self, status: int, token: str, body: bytes = b"{}") -> httpx.Response:
        """Send deliveries until one is answered with `status`."""

        def answered() -> httpx.Response | None:
            response = self.post(token, body)
            return response if response.status_code == status else None

        return wait_until(answered, f"answer {status}")  # type: ignore[return-value]

    def pids(self, child: str) -> list[int]:
        """Return the ids of every ``worker``, ``sealer`` or ``admin`` process started so far."""
        return [line["pid"] for line in self.logged("started", child=child)]

    def stop(self) -> int:
        """Drain it and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)

    def kill_everything(self) -> None:
        """Kill all its processes with SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        for pid in self.pids("worker") + self.pids("sealer") + self.pids("admin"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.http.close()


@contextmanager
def running_receiver(
    home: Path,
    *options: str,
    **settings: Any,  # noqa: ANN401  passed on
) -> Iterator[Receiver]:
    """Run a receiver that is ready and seals soon; at the end nothing of it is left.

    Whatever a test did with it, its log shows no secret of the installation.
    """
    receiver = Receiver(home, *options, **{"seal_after_seconds": 0.2} | settings)
    try:
        receiver.wait_ready()
        yield receiver
    finally:
        receiver.kill_everything()
    assert leaked_secrets(home, receiver.output) == []
    password = settings.get("admin_password")
    assert not password or str(password) not in receiver.output


def registry_of(home: Path) -> Registry:
    """Open the registry of the installation in `home`."""
    return Registry.open(f"sqlite:///{home / 'registry.sqlite'}")


def create_integration(home: Path, name: str) -> NewUrl:
    """Create an integration and return its first URL."""
    registry = registry_of(home)
    try:
        return registry.create(name)[1]
    finally:
        registry.close()


def landed_rows(landing: Path, schema: str) -> list[LandedRow]:
    """Return everything landed for an integration, each file checked against its name."""
    rows: list[LandedRow] = []
    for path in landing.glob(f"integration={schema}/date=*/hour=*/*.parquet"):
        with pq.ParquetFile(path) as parquet:
            found: list[LandedRow] = parquet.read().to_pylist()
        writer, first, last = path.stem.split("-")
        assert [row["offset"] for row in found] == list(range(int(first), int(last) + 1))
        assert {row["writer"] for row in found} == {writer}
        rows += found
    return sorted(rows, key=lambda row: (row["writer"], row["offset"]))


def check_offsets(rows: Sequence[LandedRow]) -> None:
    """Make sure that each writer's offsets are 0, 1, 2, … and its sequence rises (design C1)."""
    writers: defaultdict[str, list[LandedRow]] = defaultdict(list)
    for row in rows:
        writers[row["writer"]].append(row)
    for found in writers.values():
        assert [row["offset"] for row in found] == list(range(len(found)))
        sequences = [row["_sdc_sequence"] for row in found]
        assert all(earlier < later for earlier, later in zip(sequences, sequences[1:]))  # noqa: B905, RUF007


def wait_landed(landing: Path, schema: str, count: int) -> list[LandedRow]:
    """Wait until at least `count` deliveries are landed and return them, offsets checked."""

    def enough() -> list[LandedRow]:
        rows = landed_rows(landing, schema)
        return rows if len(rows) >= count else []

    rows = wait_until(enough, f"{count} landed deliveries of {schema}")
    check_offsets(rows)
    return rows
