"""Acknowledgements a second and their latency: the receiver beside one that stores nothing."""

import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.installation import Installation
from benchmarks.load_generator import OK, Load
from benchmarks.machine import sync_ms
from benchmarks.processes import COMMAND, LOCAL, Process, cpu_seconds, is_ok, run, running
from benchmarks.report import Row, at_least, heading, median, number, ratio
from benchmarks.requests import bodies, write_requests
from benchmarks.sizes import Sizes
from customerio_pipeline.landing.listing import LandingListing
from receiver.listener import open_listener
from receiver.metrics import make_memory

_CONNECTIONS = (1, 64)
_GOAL_CONNECTIONS = 64
_GOAL_ACKS_PER_SECOND = 2_000


class _Server(NamedTuple):
    process: Process
    port: int
    worker_pid: int
    installation: Installation

    def wait_ready(self) -> None:
        """Wait until it takes deliveries."""
        self.process.wait_for(lambda: is_ok(self.port, "/health/ready"), "it was ready")


class _Cell(NamedTuple):
    """One measurement of one server."""

    load: Load
    cpu_us: float
    """Processor time of the worker for each request."""


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about receiving."""
    with ExitStack() as stack:
        unstored = stack.enter_context(_not_storing(folder / "unstored"))
        storing = stack.enter_context(_storing(folder / "storing"))
        size = statistics.mean(map(len, bodies()))
        for server in (unstored, storing):
            server.wait_ready()
        yield heading(
            f"Receiver: 1 worker, synced, access log on, bodies of {size:,.0f} bytes (mean),"
            f" {sizes.seconds:g} s a measurement, medians of {sizes.rounds};"
            " beside it: the same server storing nothing"
        )
        syncs = []
        acked = 0
        for connections in _CONNECTIONS:
            cells: list[_Cell] = []
            limits: list[_Cell] = []
            for _ in range(sizes.rounds):
                syncs.append(sync_ms(folder))
                cells.append(_measure(storing, connections, sizes.seconds))
                acked += cells[-1].load.answers[OK]
                _wait_until_landed(storing, acked)
                limits.append(_measure(unstored, connections, sizes.seconds))
            yield from _rows(connections, cells, limits)
        yield Row("`fdatasync` of 2 KB alone, p50, ms, between the measurements", median(syncs))


def _rows(connections: int, cells: Sequence[_Cell], limits: Sequence[_Cell]) -> Iterator[Row]:
    name = "1 connection" if connections == 1 else f"{connections} connections"
    acks = [cell.load.acks_per_second for cell in cells]
    most = [cell.load.acks_per_second for cell in limits]
    is_goal = connections == _GOAL_CONNECTIONS
    yield Row(
        f"acks/s, {name}",
        f"{median(acks)}; {ratio(acks, most)}",
        median(most),
        at_least(_GOAL_ACKS_PER_SECOND, statistics.median(acks)) if is_goal else "",
    )
    for label, column in (("p50", "p50_ms"), ("p99", "p99_ms")):
        yield Row(
            f"{label}, ms, {name}",
            median([getattr(cell.load, column) for cell in cells]),
            median([getattr(cell.load, column) for cell in limits]),
        )
    yield Row(
        f"processor time of the worker a request, µs, {name}",
        median([cell.cpu_us for cell in cells]),
        median([cell.cpu_us for cell in limits]),
    )
    answers = [cell.load.answers for cell in (*cells, *limits)]
    not_stored = sum(count for found in answers for status, count in found.items() if status != OK)
    if not_stored:
        yield Row(f"answers other than 200, {name}", number(not_stored))


def _measure(server: _Server, connections: int, seconds: float) -> _Cell:
    requests = server.installation.settings.home / "requests"
    if not requests.exists():
        write_requests(requests, server.installation.path)
    command = [sys.executable, "-m", "benchmarks.load_generator", str(server.port), str(requests)]
    cpu_before = cpu_seconds(server.worker_pid)
    printed = run([*command, str(connections), str(seconds)], server.installation.environment)
    cpu = cpu_seconds(server.worker_pid) - cpu_before
    load = msgspec.json.decode(printed, type=Load)
    return _Cell(load, cpu / sum(load.answers.values()) * 1e6)


@contextmanager
def _storing(home: Path) -> Iterator[_Server]:
    """Run the receiver as a user does."""
    installation = Installation.create(home)
    command = [COMMAND, "receiver", f"--host={LOCAL}", "--port=0"]
    log = home / "receiver.log"
    with running(command, environment=installation.environment, log=log) as process:
        port = process.wait_for(lambda: _logged(log, "listening", "port"), "it listened")
        worker = process.wait_for(lambda: _logged(log, "started", "pid", "worker"), "a worker ran")
        yield _Server(process, port, worker, installation)


@contextmanager
def _not_storing(home: Path) -> Iterator[_Server]:
    """Run a worker that stores nothing, with this process as its parent."""
    installation = Installation.create(home)
    lifeline, our_end = os.pipe()
    with ExitStack() as stack:
        stack.callback(os.close, our_end)
        stack.callback(os.close, lifeline)
        metrics = make_memory()
        stack.callback(os.close, metrics)
        listener = stack.enter_context(open_listener(LOCAL, 0))
        port: int = listener.getsockname()[1]
        command = [
            *(sys.executable, "-m", "benchmarks.unstored_worker"),
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
        yield _Server(process, port, process.pid, installation)


def _logged(log: Path, event: str, field: str, child: str | None = None) -> int | None:
    """Return a number from the first line of the log about this event; None before it is there."""
    for text in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if text.endswith("}\n"):
            line = json.loads(text)
            if line["event"] == event and line.get("child") == child:
                found: int = line[field]
                return found
    return None


def _wait_until_landed(server: _Server, acked: int) -> None:
    """Wait until all is sealed: the sealer must not take a core from what is measured next."""
    listing = LandingListing(server.installation.settings.landing, server.installation.schema)

    def is_landed() -> bool:
        landed = sum(file.last - file.first + 1 for file in listing.files())
        return landed >= acked

    server.process.wait_for(is_landed, "everything acknowledged was landed")
