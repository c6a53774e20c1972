"""Receivers to be measured: as a user starts it, and single workers with a part exchanged."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.installation import Installation
from benchmarks.load_generator import OK, Load
from benchmarks.machine import sync_ms
from benchmarks.processes import COMMAND, LOCAL, Process, cpu_seconds, is_ok, run, running
from benchmarks.requests import SIGNING_KEY, write_requests
from customerio_pipeline.landing.listing import LandingListing
from receiver.listener import open_listener
from receiver.metrics import make_memory
from receiver.sealing import seal_once

NOT_STORING = "benchmarks.unstored_worker"
FIXED_DISK = "benchmarks.fixed_disk_worker"
NOT_SEALING = "receiver.worker"
"""Modules of workers."""


class Server(NamedTuple):
    """A server that takes deliveries."""

    process: Process
    port: int
    pid: int
    """Process whose time is counted: the worker."""

    requests: Path
    """What the load generator sends to it."""


class Cell(NamedTuple):
    """One measurement of one server."""

    load: Load
    cpu_us: float
    """Processor time of the worker for each request."""

    sync_ms: float
    """Mean of `fdatasync`'s p50 before and after it."""


def measure_cell(server: Server, connections: int, seconds: float, disk: Path) -> Cell:
    """Load a server as fast as it answers; `disk` is where syncs are timed before and after."""
    command = [sys.executable, "-m", "benchmarks.load_generator"]
    command += [str(server.port), str(server.requests), str(connections), str(seconds)]
    before = sync_ms(disk)
    cpu_before = cpu_seconds(server.pid)
    load = msgspec.json.decode(run(command, os.environ), type=Load)
    cpu = cpu_seconds(server.pid) - cpu_before
    return Cell(load, cpu / sum(load.answers.values()) * 1e6, (before + sync_ms(disk)) / 2)


class Receiver:
    """A receiver that stores, and how much of what it acknowledged is landed."""

    def __init__(self, server: Server, installation: Installation, *, seals: bool) -> None:
        self.server = server
        self.installation = installation
        self._seals = seals
        self._acked = 0

    def measure(self, connections: int, seconds: float, disk: Path) -> Cell:
        """Load it, then wait until all is landed: nobody else may seal while others are measured.

        Raises:
            BenchmarkError: what was acknowledged is not landed.
        """
        cell = measure_cell(self.server, connections, seconds, disk)
        self.wait_landed(cell.load.answers[OK])
        return cell

    def wait_landed(self, acked: int) -> None:
        """Wait until everything is landed that was acknowledged, now so many more."""
        self._acked += acked
        self.server.process.wait_for(self._is_landed, "everything acknowledged was landed")

    def _is_landed(self) -> bool:
        settings = self.installation.settings
        if not self._seals:
            seal_once(settings.spool, settings.landing)
        files = LandingListing(settings.landing, self.installation.schema).files()
        return sum(file.last - file.first + 1 for file in files) >= self._acked


@contextmanager
def receiver_as_started(home: Path, *, signed: bool = False, **settings: str) -> Iterator[Receiver]:
    """Run the receiver as a user does; `settings` are added to its environment.

    With `signed`, it has the key of the requests made beforehand and checks their signatures.
    """
    installation = Installation.create(home, SIGNING_KEY if signed else None)
    command = [COMMAND, "receiver", f"--host={LOCAL}", "--port=0"]
    log = home / "receiver.log"
    with running(command, environment=installation.environment | settings, log=log) as process:
        port = process.wait_for(lambda: _logged(log, "listening", "port"), "it listened")
        pid = process.wait_for(lambda: _logged(log, "started", "pid", "worker"), "a worker ran")
        server = Server(process, port, pid, _requests(installation))
        _wait_ready(server)
        yield Receiver(server, installation, seals=True)


@contextmanager
def worker_alone(
    home: Path,
    module: str,
    prepare: Callable[[Path], None] | None = None,
    *,
    signed: bool = False,
) -> Iterator[Receiver]:
    """Run a worker with this process as its parent; what it stores is sealed between cells.

    Args:
        home: of its installation.
        module: of the worker.
        prepare: called with `home` before the worker starts.
        signed: check signatures, as `receiver_as_started` does.
    """
    installation = Installation.create(home, SIGNING_KEY if signed else None)
    if prepare is not None:
        prepare(home)
    lifeline, our_end = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, our_end)
        stack.callback(os.close, lifeline)
        metrics = make_memory()
        stack.callback(os.close, metrics)
        listener = stack.enter_context(open_listener(LOCAL, 0))
        port: int = listener.getsockname()[1]
        command = [
            *(sys.executable, "-m", module),
            f"--socket={listener.fileno()}",
            f"--lifeline={lifeline}",
            f"--metrics={metrics}",
        ]
        process = stack.enter_context(
            running(
                command,
                environment=installation.environment,
                log=home / "worker.log",
                pass_fds=(listener.fileno(), lifeline, metrics),
            )
        )
        server = Server(process, port, process.pid, _requests(installation))
        _wait_ready(server)
        yield Receiver(server, installation, seals=False)


def _requests(installation: Installation) -> Path:
    file = installation.settings.home / "requests"
    write_requests(file, installation.path)
    return file


def _wait_ready(server: Server) -> None:
    server.process.wait_for(lambda: is_ok(server.port, "/health/ready"), "it was ready")


def _logged(log: Path, event: str, field: str, child: str | None = None) -> int | None:
    """Return a number from the first line of the log about this event; None before it is there."""
    for text in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("}\n"):
            line = json.loads(text)
            if line["event"] == event and line.get("child") == child:
                found: int = line[field]
                return found
    return None
