"""``customerio-pipeline trace``: what became of an event."""

import sys
from contextlib import closing
from dataclasses import asdict

import click

from customerio_pipeline.cli.output import print_json, print_table, say_if_copied
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.verifying.tracing import LoadOfRow, Trace
from customerio_pipeline.verifying.tracing import trace as trace_event
from customerio_pipeline.warehouse import open_for_reading


@click.command()
@click.argument("event_id")
@click.option("--integration", "name", help="Its name or schema; all are searched otherwise.")
@click.option(
    "--everywhere",
    is_flag=True,
    help="Search arrays of events and compressed bodies, too: their deliveries are read whole.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trace(event_id: str, name: str | None, everywhere: bool, as_json: bool) -> None:
    """Show every delivery of an event, the load that wrote its row, and the row.

    Exits with 1 when there is nothing of it.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        chosen = registry.integrations() if name is None else [registry.find(name)]
    with closing(open_for_reading(settings)) as reader:
        traces = [
            trace_event(reader, settings.landing, each.schema, event_id, everywhere=everywhere)
            for each in chosen
        ]
        say_if_copied(reader)
    known = [one for one in traces if one.is_known]
    if as_json:
        print_json([asdict(one) for one in known])
    elif known:
        for one in known:
            _print(settings, one)
    else:
        click.echo(
            f"Nothing of {event_id} is landed."
            + ("" if everywhere else " --everywhere searches arrays and compressed bodies, too.")
        )
    if not known:
        sys.exit(1)


def _print(settings: Settings, found: Trace) -> None:
    print_table(
        ["received", "URL", "signature", "writer", "offset", "fate", "file", "row"],
        [
            (
                each.received_at,
                each.url_id,
                each.signature,
                each.writer,
                each.offset,
                each.fate,
                each.file,
                each.row,
            )
            for each in found.deliveries
        ],
        title=f"{found.schema}: deliveries of {found.event_id}",
    )
    if found.load is not None:
        click.echo(_load_line(settings, found.load))
    if found.row is not None:
        print_table([f"{found.schema}.data", found.event_id], found.row.items())


def _load_line(settings: Settings, load: LoadOfRow) -> str:
    by = "the command line" if load.run_id is None else f"{settings.dagster_url}/runs/{load.run_id}"
    return f"Loaded at {load.batched_at:%Y-%m-%d %H:%M:%S} UTC in load {load.load_id} by {by}"
