"""Ten million deliveries that wait: rate and memory of loading them all."""

from collections.abc import Iterator

import click

from benchmarks.landed_events import chunks, land
from benchmarks.report import Row, at_most, heading, number
from benchmarks.stage import Stage
from benchmarks.warehouses import opened

_GOAL_PEAK_MB = 1500


def measure(stage: Stage) -> Iterator[Row]:
    """Yield the rows about catching up, for each kind of warehouse."""
    landing = stage.folder / "landing"
    pool = stage.pool()
    click.echo("  Landing events …", err=True)
    landed = land(chunks(pool, landing, "aaaaaaaaaa", 0, stage.sizes.catch_up_events))
    for kind in stage.kinds:
        with opened(kind, stage.folder) as warehouses:
            found = stage.load(warehouses.create("catch-up"), landing, "drain")
            yield heading(
                f"Catching up: {landed.deliveries:,} deliveries, {landed.json_bytes / 1e9:.2f} GB"
                f" of JSON, wait for an empty table in {warehouses.title}"
            )
            yield Row(
                "events/s",
                number(found["events"] / found["seconds"]),
                f"{found['seconds']:,.0f} s, {found['batches']:,} transactions,"
                f" {found['row_count']:,} rows",
            )
            peak = found["peak_bytes"] / 1e6
            yield Row("peak memory, MB", number(peak), goal=at_most(_GOAL_PEAK_MB, peak))
            size = warehouses.size("catch-up")
            yield Row(
                "bytes of the warehouse for a byte of JSON landed", number(size / landed.json_bytes)
            )
            warehouses.drop("catch-up")
