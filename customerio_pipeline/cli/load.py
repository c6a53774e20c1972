"""``customerio-pipeline load``: what the Dagster asset does, without Dagster."""

import logging
import sys
from typing import Self

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from customerio_pipeline.cli.output import print_json
from customerio_pipeline.errors import (
    PipelineError,
    WarehouseBusyError,
    WarehouseUnavailableError,
)
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.target import Target
from customerio_pipeline.orchestration.integrations import CurrentLayout, check_is_loading
from customerio_pipeline.registry.records import Integration, IntegrationState
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.warehouse import open_warehouse

_WAIT_SECONDS = 5.0


@click.command()
@click.argument("name", required=False)
@click.option(
    "--wait", is_flag=True, help="Go on until nothing has come for 5 seconds, not just for now."
)
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
def load(name: str | None, wait: bool, as_json: bool) -> None:
    """Load what has landed into the warehouse: of one integration, or of all that are active."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    settings = load_settings()
    registry = Registry.open(settings.registry)
    try:
        if name is not None:
            chosen = [check_is_loading(settings, registry.find(name).schema)]
        else:
            chosen = [
                integration
                for integration in registry.integrations()
                if integration.state is IntegrationState.ACTIVE
            ]
    finally:
        registry.close()
    target = open_warehouse(settings)
    failures: list[PipelineError] = []
    totals = []
    try:
        for integration in chosen:
            try:
                totals.append(_load(settings, target, integration, wait, quiet=as_json))
            except (WarehouseBusyError, WarehouseUnavailableError):
                raise  # the others would wait for it in vain, too
            except PipelineError as error:
                failures.append(error)
    finally:
        target.close()
    if as_json:
        print_json(totals)
    for failure in failures[:-1]:
        click.echo(f"Error: {failure}", err=True)
    if failures:
        raise failures[-1]


def _load(
    settings: Settings, target: Target, integration: Integration, wait: bool, *, quiet: bool
) -> dict[str, object]:
    schema = integration.schema
    layout = CurrentLayout(settings, integration)
    loader = Loader(schema, settings.landing, target, layout=layout)
    total: dict[str, int] = dict.fromkeys(
        ("files", "deliveries", "events", "inserted", "updated", "duplicates", "rejected", "held"),
        0,
    )
    try:
        with LoadProgress(schema, quiet=quiet) as progress:
            for report in drain(loader, idle_seconds=_WAIT_SECONDS if wait else 0):
                for name in total:
                    total[name] += getattr(report, name)
                progress.show(report)
    finally:
        loader.close()
        layout.close()
    if not quiet and not total["files"]:
        click.echo(f"{schema}: nothing to load")
    return {"schema": schema, **total}


class LoadProgress:
    """A line for each batch, and a bar of deliveries where there is more than one batch."""

    def __init__(self, schema: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._done = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            # Lines of batches are printed above the bar; without a terminal there is no bar.
            disable=not sys.stdout.isatty(),
            transient=True,
        )
        self._task = self._progress.add_task(schema, total=None)

    def __enter__(self) -> Self:
        """Begin without a bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self._progress.stop()

    def show(self, report: LoadReport) -> None:
        """Show what a batch did."""
        self._done += report.deliveries
        if report.waiting:
            self._progress.start()
        self._progress.update(self._task, completed=self._done, total=self._done + report.waiting)
        if not self._quiet:
            self._progress.console.print(_line(report), highlight=False, soft_wrap=True)


def _held(report: LoadReport) -> str:
    said = [f" {report.held} held;"] if report.held else []
    said += [f" {report.released} of the deliveries held no more;"] if report.released else []
    return "".join(said)


def _line(report: LoadReport) -> str:
    return (
        f"{report.schema}: {report.events} events from {report.files} files in"
        f" {report.seconds:.2f} s: {report.inserted} inserted, {report.duplicates} duplicates"
        f" ({report.updated} replaced a row), {report.rejected} rejected;"
        f"{_held(report)}"
        f" {report.row_count} rows in data"
    )
