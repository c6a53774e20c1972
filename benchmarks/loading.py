"""Events a second from landing into an empty table and into a full one."""

import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.errors import BenchmarkError
from benchmarks.landed_events import (
    DELIVERIES_PER_FILE,
    DUPLICATES,
    MALFORMED,
    Chunk,
    Landed,
    land,
)
from benchmarks.processes import run
from benchmarks.report import Row, at_least, heading, median, number
from benchmarks.sizes import Sizes

_SCHEMA = "benchmark"
_GOAL_EVENTS_PER_SECOND = 20_000
_WARM_SIZES = (1, 100)
_LATE = 0.01
"""Share of the batch that repeats events of the full table."""

Found = dict[str, Any]


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about loading."""
    bench = _Loading(folder, sizes)
    click.echo("  Simulating events: 10 to 20 s for each 100,000 …", err=True)
    table, batch = bench.land()
    filled = bench.fill()
    if filled["row_count"] < sizes.table_rows:
        raise BenchmarkError(f"The full table has {filled['row_count']} rows only.")
    yield heading(
        f"Loading into DuckDB: {batch.deliveries:,} deliveries of"
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
    full_bytes = bench.full.stat().st_size
    yield Row(
        "bytes of the warehouse for a byte of JSON landed",
        number(full_bytes / table.json_bytes),
        f"{number(table.file_bytes / table.json_bytes)} in landing",
    )
    warm = bench.warm()
    for size, took in warm["ms"].items():
        yield Row(
            f"ms to load {size} event{'s' if size != '1' else ''} into the full table, loader"
            f" warm, median of {sizes.warm_loads}",
            number(took),
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


class _Loading:
    """The folders of this benchmark, and the steps it is made of."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self._folder = folder
        self._sizes = sizes
        # Duplicates and malformed deliveries leave no row of their own; arrays leave several.
        self._table = math.ceil(sizes.table_rows / (1 - DUPLICATES - MALFORMED) * 1.01)
        self.full = folder / "full.duckdb"

    def land(self) -> tuple[Landed, Landed]:
        """Land what fills the table, and the batch; return what each is."""
        table = self._chunks("table", "aaaaaaaaaa", 0, self._table)
        batch = self._chunks("batch", "bbbbbbbbbb", self._table, self._sizes.events)
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
        return land(table), land(repeating)

    def fill(self) -> Found:
        """Load the full table."""
        return self._load(self.full, "table", "drain")

    def load_batches(self) -> tuple[list[Found], list[Found]]:
        """Load the batch into an empty and into the full table, in turns."""
        empty, full = [], []
        for _ in range(self._sizes.rounds):
            empty.append(self._load(self._copy(None), "batch", "drain"))
            full.append(self._load(self._copy(self.full), "batch", "drain"))
        return empty, full

    def warm(self) -> Found:
        """Load a few events at a time into the full table."""
        return self._load(
            self._copy(self.full),
            "warm",
            *("warm", f"--number={self._table + self._sizes.events}"),
            *(f"--loads={self._sizes.warm_loads}", "--sizes", *map(str, _WARM_SIZES)),
        )

    def _chunks(self, landing: str, writer: str, number: int, count: int) -> list[Chunk]:
        return [
            Chunk(
                self._folder / landing,
                _SCHEMA,
                writer,
                first,
                min(DELIVERIES_PER_FILE, count - first),
                number + first,
            )
            for first in range(0, count, DELIVERIES_PER_FILE)
        ]

    def _copy(self, source: Path | None) -> Path:
        """Return a warehouse of its own for one load: a copy, or None for a new one."""
        warehouse = self._folder / "batch.duckdb"
        warehouse.unlink(missing_ok=True)
        if source is not None:
            shutil.copyfile(source, warehouse)
            # What waits for being written would slow the load down.
            os.sync()
        return warehouse

    def _load(self, warehouse: Path, landing: str, *command: str) -> Found:
        environment = {
            **os.environ,
            "CUSTOMERIO_HOME": str(self._folder),
            "CUSTOMERIO_LANDING": str(self._folder / landing),
            "CUSTOMERIO_WAREHOUSE": f"duckdb:///{warehouse}",
        }
        module = ("-m", "benchmarks.load_process", _SCHEMA)
        found: Found = json.loads(run([sys.executable, *module, *command], environment))
        return found
