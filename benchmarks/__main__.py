"""``python -m benchmarks``: measure, then print one Markdown table; progress on standard error."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import click

from benchmarks import freshness, loading, receiving
from benchmarks.installation import forget_settings
from benchmarks.machine import describe, sync_ms
from benchmarks.report import Row, heading, markdown
from benchmarks.sizes import Sizes, choose
from customerio_pipeline.errors import PipelineError

_BENCHMARKS: dict[str, Callable[[Path, Sizes], Iterator[Row]]] = {
    "receiver": receiving.measure,
    "load": loading.measure,
    "freshness": freshness.measure,
}


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(list(_BENCHMARKS)), help="May be given repeatedly."
)
@click.option("--events", type=click.IntRange(min=1), help="Deliveries in a batch to load.")
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
def main(
    *, only: tuple[str, ...], events: int | None, seconds: float | None, quick: bool, folder: Path
) -> None:
    """Measure the receiver, the loader and the way from one to the other on this machine."""
    sizes = choose(quick=quick, events=events, seconds=seconds)
    _interrupt_once()
    forget_settings()
    folder.mkdir(parents=True, exist_ok=True)
    # Of this disk, for the usual place of temporary files is in memory on many machines.
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=folder.absolute()) as temporary:
        rows, is_whole = _measure(Path(temporary), only or tuple(_BENCHMARKS), sizes)
    click.echo(markdown(rows))
    if not is_whole:
        sys.exit(1)


def _measure(folder: Path, names: tuple[str, ...], sizes: Sizes) -> tuple[list[Row], bool]:
    """Return the table, and whether nothing is missing in it."""
    load_before, sync_before = os.getloadavg()[0], sync_ms(folder)
    rows: list[Row] = []
    is_whole = True
    for name in names:
        click.echo(f"Measuring: {name} …", err=True)
        part = folder / name
        part.mkdir()
        try:
            for row in _BENCHMARKS[name](part, sizes):
                rows.append(row)
                click.echo(f"  {row.what}: {row.measured}".removesuffix(": "), err=True)
        except PipelineError as error:
            click.echo(f"Error: {error}", err=True)
            rows.append(heading(f"{name}: could not be measured"))
            is_whole = False
    return [*describe(folder, load_before, sync_before), *rows], is_whole


def _interrupt_once() -> None:
    """End with everything stopped and removed, on SIGTERM too, and however often it is asked."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        click.echo("Stopping.", err=True)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)


if __name__ == "__main__":
    main()
