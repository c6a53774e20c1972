"""Events a second from landing into an empty table and into a full one; few events at a time."""

import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.errors import BenchmarkError
from benchmarks.event_pool import DUPLICATES, MALFORMED
from benchmarks.landed_events import Landed, chunks, land
from benchmarks.report import Row, at_least, at_most, heading, median, number
from benchmarks.stage import Found, Stage
from benchmarks.warehouses import DUCKDB, Warehouses, opened

_GOAL_EVENTS_PER_SECOND = 20_000
_GOAL_BYTES = 0.3
_GOAL_MS = 60
_WARM_SIZES = (1, 100)
_WARM_UPS = 2
_LATE = 0.01
"""Share of the batch that repeats events of the full table."""

_EMPTY, _FULL, _BATCH = "empty", "full", "batch"


def measure(stage: Stage) -> Iterator[Row]:
    """Yield the rows about loading, for each kind of warehouse."""
    landed = _Landed(stage)
    for kind in stage.kinds:
        with opened(kind, stage.folder) as warehouses:
            yield from _rows(_Loading(stage, landed, warehouses), kind)


def _rows(bench: "_Loading", kind: str) -> Iterator[Row]:
    table, batch, sizes = bench.landed.table, bench.landed.batch, bench.stage.sizes
    filled = bench.fill()
    if filled["row_count"] < sizes.table_rows:
        raise BenchmarkError(f"The full table has {filled['row_count']} rows only.")
    yield heading(
        f"Loading into {bench.warehouses.title}: {batch.deliveries:,} deliveries of"
        f" {batch.json_bytes / batch.deliveries:,.0f} bytes (mean), {DUPLICATES:.0%} duplicates,"
        f" {_LATE:.0%} repeats of events in the full table, {MALFORMED:.1%} malformed; a fresh"
        f" process each time, medians of {sizes.rounds}"
    )
    yield from _batch_rows(bench, filled["row_count"])
    yield Row(
        f"events/s, {table.deliveries:,} deliveries into an empty table, once",
        number(filled["events"] / filled["seconds"]),
    )
    yield Row("peak memory of that, MB", number(filled["peak_bytes"] / 1e6))
    share = bench.warehouses.size(_FULL) / table.json_bytes
    yield Row(
        "bytes of the warehouse for a byte of JSON landed",
        number(share),
        f"{number(table.file_bytes / table.json_bytes)} in landing",
        at_most(_GOAL_BYTES, share) if kind == DUCKDB else "",
    )
    for size, took in bench.warm()["ms"].items():
        yield Row(
            f"ms to load {size} event{'s' if size != '1' else ''} into the full table, loader"
            f" warm, median of {sizes.warm_loads}",
            number(took),
            goal=at_most(_GOAL_MS, took),
        )


def _batch_rows(bench: "_Loading", table_rows: int) -> Iterator[Row]:
    empty, full = bench.load_batches()
    empty_rates = [found["events"] / found["seconds"] for found in empty]
    full_rates = [found["events"] / found["seconds"] for found in full]
    yield Row(
        "events/s, into an empty table",
        median(empty_rates),
        goal=at_least(_GOAL_EVENTS_PER_SECOND, statistics.median(empty_rates)),
    )
    yield Row(
        f"events/s, into {table_rows:,} rows",
        median(full_rates),
        f"{median(empty_rates)} into an empty table",
        at_least(_GOAL_EVENTS_PER_SECOND, statistics.median(full_rates)),
    )
    for name, runs in (("an empty table", empty), (f"{table_rows:,} rows", full)):
        yield Row(
            f"peak memory, into {name}, MB", median([found["peak_bytes"] / 1e6 for found in runs])
        )


class _Landed:
    """What fills the table, and the batch."""

    def __init__(self, stage: Stage) -> None:
        sizes = stage.sizes
        self.table_folder, self.batch_folder = stage.folder / "table", stage.folder / "batch"
        # Duplicates and malformed deliveries leave no row of their own; arrays leave several.
        self.table_deliveries = math.ceil(sizes.table_rows / (1 - DUPLICATES - MALFORMED) * 1.01)
        pool = stage.pool()
        click.echo("  Landing events …", err=True)
        table = chunks(pool, self.table_folder, "aaaaaaaaaa", 0, self.table_deliveries)
        batch = chunks(pool, self.batch_folder, "bbbbbbbbbb", self.table_deliveries, sizes.events)
        repeating = [
            chunk._replace(
                late=tuple(
                    (earlier.number, int(chunk.deliveries * _LATE) // len(part)) for earlier in part
                )
            )
            for at, chunk in enumerate(batch)
            # Each repeats others, so that nothing comes a third time.
            for part in [table[at :: len(batch)]]
        ]
        self.table: Landed = land(table)
        self.batch: Landed = land(repeating)


class _Loading:
    """The steps that this benchmark is made of."""

    def __init__(self, stage: Stage, landed: _Landed, warehouses: Warehouses) -> None:
        self.stage = stage
        self.landed = landed
        self.warehouses = warehouses

    def fill(self) -> Found:
        """Load the full table."""
        return self._drain(self.warehouses.create(_FULL), self.landed.table_folder)

    def load_batches(self) -> tuple[list[Found], list[Found]]:
        """Load the batch into an empty and into the full table, in turns."""
        empty, full = [], []
        for _ in range(self.stage.sizes.rounds):
            empty.append(self._drain(self.warehouses.create(_EMPTY), self.landed.batch_folder))
            copy = self.warehouses.copy(_FULL, _BATCH)
            full.append(self._drain(copy, self.landed.batch_folder))
        return empty, full

    def warm(self) -> Found:
        """Load a few events at a time into the full table."""
        sizes = self.stage.sizes
        return self.stage.load(
            self.warehouses.copy(_FULL, _BATCH),
            self.stage.folder / f"warm-{self.warehouses.title}",
            "warm",
            f"--pool={self.stage.pool()}",
            f"--number={self.landed.table_deliveries + sizes.events}",
            f"--warm-ups={_WARM_UPS}",
            f"--loads={sizes.warm_loads}",
            *("--sizes", *map(str, _WARM_SIZES)),
        )

    def _drain(self, warehouse: str, landing: Path) -> Found:
        return self.stage.load(warehouse, landing, "drain")
