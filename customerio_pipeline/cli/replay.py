"""``customerio-pipeline replay`` and ``replay-rejected``: what was loaded, loaded again."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from customerio_pipeline.cli.moments import Moment
from customerio_pipeline.cli.output import print_json
from customerio_pipeline.loading.replaying import Replayer, ReplayReport
from customerio_pipeline.loading.target import Target
from customerio_pipeline.orchestration.integrations import check_is_loading, layout_of
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from customerio_pipeline.warehouse import open_warehouse


@click.command("replay-rejected")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay_rejected(name: str, as_json: bool) -> None:
    """Try the rejected records of the integration NAME again.

    For when the reason is gone: after an upgrade, say. What is valid now enters the table and
    leaves _sdc_rejected, in one transaction a batch; the rest stays as it is.
    """
    _replay(name, lambda replayer: replayer.replay_rejected(), as_json=as_json)


@click.command()
@click.argument("name")
@click.option(
    "--since", type=Moment(), required=True, help="Beginning with the hour of landing of this time."
)
@click.option("--until", type=Moment(), help="Up to this time; by default up to now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(name: str, since: datetime, until: datetime | None, as_json: bool) -> None:
    """Load what the integration NAME landed in a range of time again.

    For when its rows should come out differently now: after an upgrade, say. Otherwise it changes
    nothing. What is not loaded yet waits for its load.
    """
    end = until or datetime.now(UTC)
    if end <= since:
        raise click.BadParameter("it is not after --since.", param_hint="--until")
    _replay(name, lambda replayer: replayer.replay_landed(since, end), as_json=as_json)


def _replay(name: str, run: Callable[[Replayer], ReplayReport], *, as_json: bool) -> None:
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = check_is_loading(settings, registry.find(name).schema)
    schema = integration.schema
    with closing(open_warehouse(settings)) as target:
        try:
            with (
                _progress(schema) as progress,
                closing(
                    Replayer(
                        schema,
                        settings.landing,
                        target,
                        layout_of(settings, integration),
                        progress,
                    )
                ) as replayer,
            ):
                found = run(replayer)
        finally:
            target.publish(force=True)
        rejected = _rejected(target, schema)
    if as_json:
        print_json({**asdict(found), "still_rejected": rejected})
    else:
        click.echo(
            f"{schema}: {found.deliveries:,} deliveries loaded again: {found.inserted:,} inserted,"
            f" {found.replaced:,} replaced; {found.rejected:+,} rejected, {rejected:,} are now"
        )


def _rejected(target: Target, schema: str) -> int:
    if not target.state(schema).table_columns:
        return 0
    [[count]] = target.query(f'SELECT count(*) FROM "{schema}"._sdc_rejected').rows  # noqa: S608  a checked name
    return int(str(count))


@contextmanager
def _progress(schema: str) -> Iterator[Callable[[ReplayReport, int], None]]:
    """Show a bar of deliveries where there is a terminal."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(schema, total=None)

        def show(report: ReplayReport, in_all: int) -> None:
            progress.update(task, advance=report.deliveries, total=in_all)

        yield show
