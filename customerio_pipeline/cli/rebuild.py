"""``customerio-pipeline rebuild``: tables made anew from the landing files."""

import sys
from contextlib import closing
from dataclasses import asdict

import click

from customerio_pipeline.cli.load import LoadProgress
from customerio_pipeline.cli.output import print_json
from customerio_pipeline.orchestration.integrations import layout_of
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from customerio_pipeline.verifying.rebuilding import Rebuilt
from customerio_pipeline.verifying.rebuilding import rebuild as rebuild_tables
from customerio_pipeline.warehouse import open_warehouse


@click.command()
@click.argument("name")
@click.option("--check", is_flag=True, help="Compare only; exits with 1 if there is a difference.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rebuild(name: str, check: bool, as_json: bool) -> None:
    """Make the tables of the integration NAME anew from its landing files.

    They are filled beside the old ones, while loads and readers go on, compared with them, and
    swapped in one transaction.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
    with (
        closing(open_warehouse(settings)) as target,
        LoadProgress(integration.schema, quiet=as_json) as progress,
    ):
        found = rebuild_tables(
            target,
            settings.landing,
            integration.schema,
            layout_of(settings, integration),
            check=check,
            progress=progress.show,
        )
        target.publish(force=found.is_swapped)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)
    if check and not found.is_same:
        sys.exit(1)


def _print(found: Rebuilt) -> None:
    click.echo(
        f"{found.schema}: {found.rows:,} rows from {found.deliveries:,} deliveries;"
        f" {found.different:,} were different, {found.missing:,} missing, {found.surplus:,} surplus"
    )
    if found.before_rules:
        hint = "" if found.is_swapped else f": `customerio-pipeline rebuild {found.schema}` applies"
        click.echo(
            f"  {found.before_rules:,} of the different ones were loaded before the rules on fields"
            f" last changed{hint and f'{hint} them'}"
        )
    for example in found.examples:
        click.echo(f"  {example.what:9}  {example.event_id}")
    more = found.different + found.missing + found.surplus - len(found.examples)
    if more:
        click.echo(f"  and {more:,} more")
    if found.is_swapped:
        click.echo("The tables were swapped.")
