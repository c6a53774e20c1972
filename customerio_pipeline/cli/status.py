"""``customerio-pipeline status``: what arrived and how far loading is, per integration."""

from dataclasses import asdict

import click

from customerio_pipeline.cli.output import print_json, print_table, say_if_copied
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from customerio_pipeline.verifying.progress import read_progress
from customerio_pipeline.warehouse import open_for_reading


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show, for every integration, what has landed, what is loaded and what waits."""
    settings = load_settings()
    registry = Registry.open(settings.registry)
    reader = open_for_reading(settings)
    try:
        found: list[dict[str, object]] = [
            {
                "schema": integration.schema,
                "state": integration.state,
                "live_urls": sum(url.revoked_at is None for url in registry.urls(integration)),
                **asdict(read_progress(reader, settings.landing, integration.schema)),
            }
            for integration in registry.integrations()
        ]
    finally:
        reader.close()
        registry.close()
    say_if_copied(reader)
    if as_json:
        print_json(found)
    elif found:
        print_table(
            [name.replace("_", " ") for name in found[0]], [list(line.values()) for line in found]
        )
    else:
        click.echo('No integrations yet: customerio-pipeline integrations create "NAME"')
