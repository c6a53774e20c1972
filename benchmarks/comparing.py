"""Landing to table beside what people use and beside what no loader can exceed, in one run."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import click

from benchmarks.errors import BenchmarkError
from benchmarks.event_pool import DUPLICATES, FEWEST_BYTES, MALFORMED, MOST_BYTES
from benchmarks.landed_events import SCHEMA, Landed, chunks, land
from benchmarks.processes import run
from benchmarks.report import NOT_MEASURED, Row, at_least, heading, number
from benchmarks.stage import Found, Stage
from benchmarks.warehouses import DUCKDB, POSTGRESQL, Warehouses, opened

OURS = "ours"
_MICROSECONDS = 1e6
_WAREHOUSE = "compared"


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Somebody else who loads, or a limit."""

    name: str
    title: str
    sample: int
    """The most events that it is given: as many as take it some seconds."""

    goals: dict[str, float]
    """How many times its rate we are to reach, by kind of warehouse; the kinds it is run on."""

    packages: tuple[str, ...] = ()


_DLT = ("dlt", "orjson")
_ALL = 1_000_000
_SIDES = (
    _Side(
        name="dlt-default",
        title="dlt, JSON, as it comes",
        sample=20_000,
        goals={DUCKDB: 80, POSTGRESQL: 12},
        packages=_DLT,
    ),
    _Side(
        name="dlt-tuned",
        title="dlt, JSON, tuned",
        sample=100_000,
        goals={DUCKDB: 10, POSTGRESQL: 12},
        packages=_DLT,
    ),
    _Side(
        name="dlt-parallel",
        title="dlt, JSON, tuned, two processes",
        sample=100_000,
        goals={DUCKDB: 10, POSTGRESQL: 12},
        packages=_DLT,
    ),
    _Side(
        name="dlt-arrow",
        title="dlt, given our parsed and flattened rows",
        sample=250_000,
        goals={DUCKDB: 2.5, POSTGRESQL: 2.5},
        packages=(*_DLT, "adbc_driver_postgresql"),
    ),
    _Side(
        name="pandas-duckdb",
        title="pandas and SQL by hand",
        sample=200_000,
        goals={DUCKDB: 5},
        packages=("pandas", "orjson"),
    ),
    _Side(
        name="pandas-postgresql",
        title="pandas and SQL by hand",
        sample=200_000,
        goals={POSTGRESQL: 4.5},
        packages=("pandas", "orjson"),
    ),
    _Side(
        name="json-transform",
        title="limit: `json_transform` with known columns, nothing kept",
        sample=_ALL,
        goals={DUCKDB: 0.27},
    ),
    _Side(
        name="json-transform-kept",
        title="limit: the same, kept in memory",
        sample=_ALL,
        goals={DUCKDB: 0.27},
    ),
    _Side(
        name="copy-rows",
        title="limit: bare COPY of ready rows",
        sample=500_000,
        goals={POSTGRESQL: 0.45},
    ),
    _Side(
        name="copy-text",
        title="limit: bare COPY of a finished CSV text",
        sample=500_000,
        goals={POSTGRESQL: 0.45},
    ),
)
SIDES = (OURS, *(side.name for side in _SIDES))


def measure(stage: Stage) -> Iterator[Row]:
    """Yield the rows of the comparison, for each kind of warehouse."""
    bench = _Comparison(stage)
    for kind in stage.kinds:
        with opened(kind, stage.folder) as warehouses:
            yield heading(f"Landing to `data` in {warehouses.title}, beside others: {bench.input}")
            if warehouses.settings:
                yield Row("Server", warehouses.settings)
            yield from bench.rows(kind, warehouses)


class _Comparison:
    """What is landed for all sides, and how each is run."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._landing = stage.folder / "landing"
        self._ready = stage.folder / "ready.arrow"
        pool = stage.pool()
        click.echo("  Landing events …", err=True)
        deliveries = stage.sizes.compared_events
        landed = land(chunks(pool, self._landing, "aaaaaaaaaa", 0, deliveries))
        self.input = _describe(landed)
        self._write_ready_rows()

    def rows(self, kind: str, warehouses: Warehouses) -> Iterator[Row]:
        """Measure every side on one kind of warehouse; ours before and after the others."""
        sides = [side for side in _SIDES if kind in side.goals and self._is_chosen(side.name)]
        before: Found | None = None
        try:
            before = self._ours(warehouses)
            yield _ours_row(before, "first")
        except BenchmarkError as error:
            yield _failed("customerio-pipeline", error)
        measured: list[tuple[_Side, Found]] = []
        for side in sides:
            try:
                measured.append((side, self._side(side, warehouses)))
            except BenchmarkError as error:
                yield _failed(side.title, error)
            else:
                click.echo(f"  {side.title}: {_rate(measured[-1][1]):,.0f} events/s", err=True)
        ours = before
        if before is not None and measured:
            after = self._ours(warehouses)
            yield _ours_row(after, "last")
            ours = {name: (before[name] + after[name]) / 2 for name in ("seconds", "cpu_seconds")}
            ours["events"] = before["events"]
        for side, found in measured:
            yield _side_row(side, found, ours, kind)

    def _is_chosen(self, name: str) -> bool:
        return not self._stage.sides or name in self._stage.sides

    def _write_ready_rows(self) -> None:
        """Load once, which also warms the caches, and keep the rows for those that get them."""
        needed = [side for side in _SIDES if side.name in ("dlt-arrow", "copy-rows", "copy-text")]
        if not any(self._is_chosen(side.name) for side in needed):
            return
        with opened(DUCKDB, self._stage.folder) as files:
            self._stage.load(files.create("ready"), self._landing, "drain")
            source = files.url("ready").removeprefix("duckdb:///")
            most = str(max(side.sample for side in needed))
            command = ["-m", "benchmarks.ready_rows", source, SCHEMA, most, str(self._ready)]
            run([sys.executable, *command], os.environ)
            files.drop("ready")

    def _ours(self, warehouses: Warehouses) -> Found:
        server_before = warehouses.cpu_seconds()
        found = self._stage.load(warehouses.create(_WAREHOUSE), self._landing, "drain")
        server = warehouses.cpu_seconds() - server_before
        found["cpu_seconds"] += server
        return found | {"server_cpu_seconds": server}

    def _side(self, side: _Side, warehouses: Warehouses) -> Found:
        missing = [package for package in side.packages if find_spec(package) is None]
        if missing:
            raise BenchmarkError(f"{', '.join(missing)} not installed: run `make bench-install`.")
        work = self._stage.folder / f"work-{warehouses.title}-{side.name}"
        work.mkdir()
        arguments = {
            "landing": self._landing,
            "ready": self._ready,
            "warehouse": warehouses.create(_WAREHOUSE),
            "events": min(side.sample, self._stage.sizes.compared_events),
            "work": work,
        }
        options = [f"--{name}={value}" for name, value in arguments.items()]
        server_before = warehouses.cpu_seconds()
        # A peer would find settings of the caller's in the home folder.
        printed = run(
            [sys.executable, "-m", "benchmarks.peers", side.name, *options],
            {**os.environ, "HOME": str(work)},
        )
        server = warehouses.cpu_seconds() - server_before
        found: Found = json.loads(printed.splitlines()[-1])
        found["cpu_seconds"] += server
        return found | {"server_cpu_seconds": server}


def _describe(landed: Landed) -> str:
    return (
        f"{landed.deliveries:,} deliveries of {landed.json_bytes / landed.deliveries:,.0f} bytes"
        f" (mean; {FEWEST_BYTES:,} to {MOST_BYTES:,}), {DUPLICATES:.0%} duplicates,"
        f" {MALFORMED:.1%} malformed; a fresh process and an empty warehouse each time, files in"
        " the page cache"
    )


def _rate(found: Found) -> float:
    return float(found["events"] / found["seconds"])


def _costs(found: Found) -> str:
    """Return what an event cost: processor time, the server's part of it, and the memory."""
    per_event = found["cpu_seconds"] / found["events"] * _MICROSECONDS
    server = found["server_cpu_seconds"] / found["events"] * _MICROSECONDS
    of_server = f", {number(server)} of it the server's" if server else ""
    return f"{number(per_event)} µs CPU{of_server}; peak {number(found['peak_bytes'] / 1e6)} MB"


def _ours_row(found: Found, when: str) -> Row:
    batch = found["deliveries"] / found["batches"]
    return Row(
        f"customerio-pipeline, measured {when}; {found['events']:,} events, {found['batches']}"
        f" transactions of {batch:,.0f}",
        f"{number(_rate(found))} events/s; {_costs(found)}",
    )


def _side_row(side: _Side, found: Found, ours: Found | None, kind: str) -> Row:
    beside = goal = ""
    if ours is not None:
        times = _rate(ours) / _rate(found)
        cpu = (found["cpu_seconds"] / found["events"]) / (ours["cpu_seconds"] / ours["events"])
        beside = f"ours {times:.2f}x; {cpu:.2f}x by CPU"
        goal = at_least(side.goals[kind], times)
    doubled = (found["rows"] or 0) - (found["event_ids"] or 0)
    note = f"; left {doubled:,} rows too many" if doubled else ""
    return Row(
        f"{side.title} ({found['configuration']}); {found['events']:,} events",
        f"{number(_rate(found))} events/s; {_costs(found)}{note}",
        beside,
        goal,
    )


def _failed(title: str, error: BenchmarkError) -> Row:
    return Row(title, NOT_MEASURED, " ".join(str(error).split()))
