"""``customerio-pipeline expire``: old days of landing are removed."""

from contextlib import closing

import click

from customerio_pipeline.cli.output import print_json
from customerio_pipeline.errors import SettingsError
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from customerio_pipeline.verifying.expiring import expire_loaded
from customerio_pipeline.warehouse import open_warehouse


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def expire(name: str | None, as_json: bool) -> None:
    """Remove days of landing that are older than CUSTOMERIO_LANDING_RETENTION_DAYS and loaded.

    Of one integration, or of all. Dagster does it every hour when that is set. What is not loaded
    stays, and so does what is held.
    """
    settings = load_settings()
    days = settings.landing_retention_days
    if days is None:
        raise SettingsError(
            "CUSTOMERIO_LANDING_RETENTION_DAYS is not set: landing is kept for ever."
        )
    with closing(Registry.open(settings.registry)) as registry:
        chosen = registry.integrations() if name is None else [registry.find(name)]
    with closing(open_warehouse(settings)) as target:
        found = [expire_loaded(target, settings.landing, each.schema, days=days) for each in chosen]
    if as_json:
        print_json([one._asdict() for one in found])
        return
    for one in found:
        click.echo(one.sentence)
        for reason in one.kept:
            click.echo(f"  stays: {reason}")
