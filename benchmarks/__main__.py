"""``python -m benchmarks``: measure, then print one Markdown table; progress on standard error."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click
import structlog

from benchmarks import (
    catching_up,
    comparing,
    freshness,
    growing,
    loading,
    receiver_peers,
    receiving,
    sealing_beside,
)
from benchmarks.installation import forget_settings
from benchmarks.machine import describe, sync_ms
from benchmarks.report import NOT_MEASURED, Row, heading, markdown, number
from benchmarks.sizes import choose
from benchmarks.stage import Stage
from benchmarks.warehouses import DUCKDB, POSTGRESQL
from customerio_pipeline.errors import PipelineError

_BENCHMARKS: dict[str, Callable[[Stage], Iterator[Row]]] = {
    "receiver": lambda stage: receiving.measure(stage.folder, stage.sizes),
    "receiver-sealing": lambda stage: sealing_beside.measure(stage.folder, stage.sizes),
    "receiver-peers": receiver_peers.measure,
    "load": loading.measure,
    "compare": comparing.measure,
    "growth": growing.measure,
    "catch-up": catching_up.measure,
    "freshness": lambda stage: freshness.measure(stage.folder, stage.sizes),
}
# Takes many minutes and much of the disk.
_ON_REQUEST = ("catch-up",)


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="May be given repeatedly."
)
@click.option(
    "--warehouse",
    "kinds",
    multiple=True,
    type=click.Choice([DUCKDB, POSTGRESQL]),
    help="Loads into this kind only; may be given repeatedly.",
)
@click.option(
    "--side",
    "sides",
    multiple=True,
    type=click.Choice([*comparing.SIDES, *receiver_peers.SIDES]),
    help="Compares with this side only; may be given repeatedly.",
)
@click.option("--events", type=click.IntRange(min=1), help="Deliveries to load.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.05), help="Length of a measurement of the receiver."
)
@click.option("--quick", is_flag=True, help="Small sizes: to see that it works, not to compare.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="Where the data is kept meanwhile; its disk is measured.",
)
def main(  # noqa: PLR0913  one for each option
    *,
    only: tuple[str, ...],
    kinds: tuple[str, ...],
    sides: tuple[str, ...],
    events: int | None,
    seconds: float | None,
    quick: bool,
    folder: Path,
) -> None:
    """Measure the receiver, the loader and the way from one to the other on this machine."""
    # Sealing between two measurements is told in the log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    sizes = choose(quick=quick, events=events, seconds=seconds)
    _interrupt_once()
    forget_settings()
    folder.mkdir(parents=True, exist_ok=True)
    # Of this disk, for the usual place of temporary files is in memory on many machines.
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder.absolute()) as temporary:
        stage = Stage(
            folder=Path(temporary),
            sizes=sizes,
            kinds=kinds or (DUCKDB, POSTGRESQL),
            sides=sides,
        )
        usual = tuple(name for name in _BENCHMARKS if name not in _ON_REQUEST)
        rows, is_whole = _measure(stage, only or usual)
    click.echo(markdown(rows))
    if not is_whole:
        sys.exit(1)


def _measure(stage: Stage, names: tuple[str, ...]) -> tuple[list[Row], bool]:
    """Return the table, and whether nothing is missing in it."""
    folder = stage.folder
    load_before, sync_before = os.getloadavg()[0], sync_ms(folder)
    began = time.monotonic()
    rows: list[Row] = []
    is_whole = True
    for name in names:
        click.echo(f"Measuring: {name} …", err=True)
        part = folder / name
        part.mkdir()
        try:
            for row in _BENCHMARKS[name](replace(stage, folder=part)):
                rows.append(row)
                is_whole = is_whole and row.measured != NOT_MEASURED
                click.echo(f"  {row.what}: {row.measured}".removesuffix(": "), err=True)
        except PipelineError as error:
            click.echo(f"Error: {error}", err=True)
            rows.append(heading(f"{name}: could not be measured"))
            is_whole = False
        # Gigabytes that nobody needs any more; the pool stays.
        shutil.rmtree(part, ignore_errors=True)
    took = Row("Minutes that all of it took", number((time.monotonic() - began) / 60))
    return [*describe(folder, load_before, sync_before), took, *rows], is_whole


def _interrupt_once() -> None:
    """End with everything stopped and removed, on SIGTERM too, and however often it is asked."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, signal.SIG_IGN)
        click.echo("Stopping.", err=True)
        raise KeyboardInterrupt

    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, interrupt)


if __name__ == "__main__":
    main()
