"""The receiver beside what people use instead; all of them sync, and take turns on one disk."""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import psycopg

from benchmarks.errors import BenchmarkError
from benchmarks.load_generator import OK
from benchmarks.processes import LOCAL, is_ok, running
from benchmarks.receiver_servers import Cell, Server, measure_cell, receiver_as_started
from benchmarks.report import (
    NOT_MEASURED,
    Row,
    at_least,
    bar_and_goal,
    heading,
    median,
    median_ratio,
    ratio,
)
from benchmarks.requests import write_requests
from benchmarks.stage import Stage
from benchmarks.warehouses import POSTGRESQL, opened
from customerio_pipeline.cli.processes import free_port

_CONNECTIONS = 64
_TOKEN = "peer"  # noqa: S105  of a server that only this machine reaches
_POOL = 16
_LIST = "events"


class _Peer(NamedTuple):
    """A server that takes the same deliveries."""

    server: Server
    configuration: str
    stored: Callable[[], int]
    """Returns how many deliveries it has stored."""


class _Side(NamedTuple):
    title: str
    run: Callable[[Path], AbstractContextManager[_Peer]]
    bar: float
    goal: float


def measure(stage: Stage) -> Iterator[Row]:
    """Yield the rows of the comparison."""
    yield heading(
        f"Receiver beside others: {_CONNECTIONS} connections, syncing, 1 process with uvicorn and"
        f" uvloop where it is Python, no log lines, {stage.sizes.seconds:g} s a measurement,"
        f" medians of {stage.sizes.receiver_rounds}; beside it: ours, measured before it each time"
    )
    for name, side in _SIDES.items():
        if not stage.sides or name in stage.sides:
            try:
                yield _measure(stage, name, side)
            except BenchmarkError as error:
                first = str(error).splitlines()[0]
                yield Row(side.title, NOT_MEASURED, first)


def _measure(stage: Stage, name: str, side: _Side) -> Row:
    folder = stage.folder / name
    folder.mkdir()
    theirs: list[Cell] = []
    ours: list[Cell] = []
    seconds = stage.sizes.seconds
    with ExitStack() as stack:
        peer = stack.enter_context(side.run(folder))
        receiver = stack.enter_context(
            receiver_as_started(folder / "ours", signed=True, CUSTOMERIO_ACCESS_LOG="false")
        )
        for _ in range(stage.sizes.receiver_rounds):
            ours.append(receiver.measure(_CONNECTIONS, seconds, folder))
            theirs.append(measure_cell(peer.server, _CONNECTIONS, seconds, folder))
        _check(peer.stored(), theirs)
    return _row(f"{side.title} ({peer.configuration})", side, theirs, ours)


def _check(stored: int, cells: Sequence[Cell]) -> None:
    """Make sure that what is compared has kept what it acknowledged.

    Raises:
        BenchmarkError: it has not.
    """
    acked = sum(cell.load.answers.get(OK, 0) for cell in cells)
    if stored < acked:
        raise BenchmarkError(f"It acknowledged {acked:,} deliveries and stored {stored:,}.")


def _row(title: str, side: _Side, theirs: Sequence[Cell], ours: Sequence[Cell]) -> Row:
    rates, our_rates = ([cell.load.acks_per_second for cell in it] for it in (theirs, ours))
    times = median_ratio(our_rates, rates)
    goal = at_least(side.bar, times)
    if side.goal > side.bar:
        goal = bar_and_goal(at_least, side.bar, side.goal, times)
    return Row(
        title,
        f"{median(rates)} acks/s; p99 {median([cell.load.p99_ms for cell in theirs])} ms;"
        f" `fdatasync` {median([cell.sync_ms for cell in theirs])} ms",
        f"ours {ratio(our_rates, rates)}: {median(our_rates)} acks/s;"
        f" p99 {median([cell.load.p99_ms for cell in ours])} ms;"
        f" `fdatasync` {median([cell.sync_ms for cell in ours])} ms",
        goal,
    )


@contextmanager
def _sqlite(folder: Path) -> Iterator[_Peer]:
    database = folder / "events.sqlite"

    def stored() -> int:
        with closing(sqlite3.connect(database)) as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])

    with _served_by_uvicorn(folder, "receiving_sqlite", str(database), "aiosqlite") as server:
        yield _Peer(
            server,
            f"FastAPI {version('fastapi')}, aiosqlite {version('aiosqlite')}, SQLite"
            f" {sqlite3.sqlite_version}: WAL, synchronous=FULL, a transaction a request",
            stored,
        )


@contextmanager
def _postgresql(folder: Path) -> Iterator[_Peer]:
    with opened(POSTGRESQL, folder) as warehouses:
        url = warehouses.create("peer")

        def stored() -> int:
            with psycopg.connect(url) as connection:
                found = connection.execute("SELECT count(*) FROM events").fetchone()
            return int(found[0]) if found else 0

        with _served_by_uvicorn(folder, "receiving_postgresql", url, "asyncpg") as server:
            yield _Peer(
                server,
                f"FastAPI {version('fastapi')}, asyncpg {version('asyncpg')}, pool of {_POOL};"
                f" {warehouses.settings}",
                stored,
            )


@contextmanager
def _served_by_uvicorn(folder: Path, module: str, database: str, package: str) -> Iterator[Server]:
    for needed in ("fastapi", package):
        try:
            version(needed)
        except PackageNotFoundError:
            raise BenchmarkError(f"{needed} is not installed: run `make bench-install`.") from None
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.peers.{module}:app"]
    command += [f"--host={LOCAL}", f"--port={port}", "--loop=uvloop", "--http=httptools"]
    command += ["--no-access-log", "--log-level=warning"]
    environment = {
        **os.environ,
        "PEER_DATABASE": database,
        "PEER_POOL": str(_POOL),
        "PEER_TOKEN": sha256(_TOKEN.encode()).hexdigest(),
    }
    requests = folder / "requests"
    write_requests(requests, f"/v1/webhooks/{_TOKEN}")
    with running(command, environment=environment, log=folder / "peer.log") as process:
        process.wait_for(lambda: is_ok(port, "/openapi.json"), "it was ready")
        yield Server(process, port, process.pid, requests)


@contextmanager
def _webdis(folder: Path) -> Iterator[_Peer]:
    for program in ("webdis", "redis-server"):
        if shutil.which(program) is None:
            raise BenchmarkError(f"{program} is not installed (Debian: apt install {program}).")
    redis_port, port = free_port(), free_port()
    redis = ["redis-server", "--bind", LOCAL, "--port", str(redis_port), "--dir", str(folder)]
    redis += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    # Rewriting its file would only slow it down.
    redis += ["--auto-aof-rewrite-percentage", "0"]
    configuration = folder / "webdis.json"
    configuration.write_text(
        json.dumps(
            {
                "redis_host": LOCAL,
                "redis_port": redis_port,
                "http_host": LOCAL,
                "http_port": port,
                "threads": 2,
                "daemonize": False,
                "verbosity": 0,
                "logfile": str(folder / "webdis.log"),
            }
        )
    )
    requests = folder / "requests"
    write_requests(requests, f"/RPUSH/{_LIST}", "PUT")
    with ExitStack() as stack:
        stack.enter_context(running(redis, environment=os.environ, log=folder / "redis.log"))
        process = stack.enter_context(
            running(
                ["webdis", str(configuration)], environment=os.environ, log=folder / "webdis.out"
            )
        )
        process.wait_for(lambda: is_ok(port, "/PING"), "it was ready")
        yield _Peer(
            Server(process, port, process.pid, requests),
            "from Debian's packages; RPUSH of the body, appendfsync always, 2 threads, Redis's"
            " file is never rewritten; it checks no token",
            lambda: _list_length(port),
        )


def _list_length(port: int) -> int:
    with urlopen(f"http://{LOCAL}:{port}/LLEN/{_LIST}") as answer:
        return int(json.load(answer)["LLEN"])


_SIDES = {
    "fastapi-sqlite": _Side("FastAPI and SQLite", _sqlite, 6, 6),
    "fastapi-postgresql": _Side("FastAPI and PostgreSQL", _postgresql, 4, 4),
    "webdis": _Side("webdis and Redis", _webdis, 0.75, 1),
}
SIDES = tuple(_SIDES)
