"""What a batch takes to be merged into many rows, beside what it takes into few."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.event_pool import DUPLICATES, MALFORMED
from benchmarks.landed_events import SCHEMA, chunks, land
from benchmarks.processes import run
from benchmarks.report import Row, at_most, heading, number
from benchmarks.stage import Found, Stage
from benchmarks.warehouses import Warehouses, opened

_GOAL_RATIO = 1.3
_GOAL_PEAK_MB = 1500
_WARM_UPS = 2
_LATE_PLACES = 10


def measure(stage: Stage) -> Iterator[Row]:
    """Yield the rows about growth, for each kind of warehouse."""
    for kind in stage.kinds:
        with opened(kind, stage.folder) as warehouses:
            yield from _Growth(stage, warehouses, stage.sizes.growth_rows[kind]).rows()


class _Growth:
    def __init__(self, stage: Stage, warehouses: Warehouses, many: int) -> None:
        self._stage = stage
        self._warehouses = warehouses
        self._many = many
        self._pool = stage.pool()
        self._copies = 0
        """Copies of the pool in the greater table."""

    def rows(self) -> Iterator[Row]:
        """Make both tables, merge batches into each."""
        sizes = self._stage.sizes
        few_rows, many_rows = self._make_few(), self._make_many()
        # In turns, for other work on the machine comes and goes.
        first, many, last = (
            self._merge(name, copies)
            for name, copies in (("few", 1), ("many", self._copies), ("again", 1))
        )
        size = str(sizes.growth_batch)
        few = {
            name: (first[name][size] + last[name][size]) / 2
            for name in ("merge_ms", "merge_cpu_ms", "ms")
        }
        yield heading(
            f"Growth in {self._warehouses.title}: batches of {sizes.growth_batch:,} deliveries, 1%"
            f" of them repeats of events in the table; one process a table, the few"
            f" rows first and last; medians of {sizes.growth_loads} after {_WARM_UPS}, caches warm"
        )
        names = {
            "merge_ms": "ms to merge and commit",
            "merge_cpu_ms": "the loader's processor time of that, ms,",
            "ms": "ms of the whole load",
        }
        for name, what in names.items():
            times = many[name][size] / few[name]
            yield Row(
                f"{what} into {many_rows:,} rows",
                f"{number(many[name][size])}; {times:.2f}x",
                f"{number(few[name])} into {few_rows:,} ({number(first[name][size])} first,"
                f" {number(last[name][size])} last)",
                at_most(_GOAL_RATIO, times) if name == "merge_ms" else "",
            )
        peak = many["peak_bytes"] / 1e6
        yield Row(
            f"peak memory with {many_rows:,} rows in the table, MB",
            number(peak),
            f"{number(last['peak_bytes'] / 1e6)} with {few_rows:,}",
            at_most(_GOAL_PEAK_MB, peak),
        )

    def _make_few(self) -> int:
        rows = self._stage.sizes.growth_small_rows
        deliveries = math.ceil(rows / (1 - DUPLICATES - MALFORMED) * 1.01)
        loaded = int(self._load("few", deliveries)["row_count"])
        self._warehouses.copy("few", "again")
        return loaded

    def _make_many(self) -> int:
        pool_events = self._stage.sizes.pool_events
        found = self._load("many", pool_events)
        self._copies = math.ceil(self._many / found["row_count"])
        click.echo(f"  Making {self._many:,} rows …", err=True)
        arguments = [self._warehouses.url("many"), SCHEMA, str(pool_events), str(self._copies - 1)]
        return int(run([sys.executable, "-m", "benchmarks.big_table", *arguments], os.environ))

    def _load(self, name: str, deliveries: int) -> Found:
        landing = self._landing(name)
        land(chunks(self._pool, landing, "aaaaaaaaaa", 0, deliveries))
        return self._stage.load(self._warehouses.create(name), landing, "drain")

    def _merge(self, name: str, copies: int) -> Found:
        """Load batches that are newer than all in the table but for the repeats in them."""
        sizes = self._stage.sizes
        self._warehouses.warm(name)
        late = {copies * place // _LATE_PLACES * sizes.pool_events for place in range(_LATE_PLACES)}
        return self._stage.load(
            self._warehouses.url(name),
            self._landing(name),
            "warm",
            f"--pool={self._pool}",
            # After the last of both tables, and the batches into the smaller one.
            f"--number={(self._copies + 100) * sizes.pool_events}",
            *("--late", *map(str, sorted(late))),
            f"--warm-ups={_WARM_UPS}",
            f"--loads={sizes.growth_loads}",
            f"--sizes={sizes.growth_batch}",
        )

    def _landing(self, name: str) -> Path:
        return self._stage.folder / f"{name}-{self._warehouses.title}"
