"""``customerio-pipeline status``: what arrived and how far loading is, per integration."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import click

from customerio_pipeline.cli.output import print_json, print_table, say_if_copied
from customerio_pipeline.errors import WarehouseUnavailableError
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.reading import count_pending, pending_files
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.target import Reader
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.warehouse import open_for_reading


@dataclass(frozen=True, slots=True)
class _Status:
    schema: str
    state: str
    live_urls: int
    landed: int
    """Deliveries in landing files."""

    waiting: int
    """Deliveries that are landed and not loaded."""

    held: int
    """Deliveries that are kept and not loaded, since no signing key signed them."""

    rows: int
    rejected: int
    last_received_at: datetime | None
    """Receipt of the newest loaded delivery."""

    waiting_seconds: float
    """Age of the oldest landing file that waits."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show, for every integration, what has landed, what is loaded and what waits."""
    settings = load_settings()
    registry = Registry.open(settings.registry)
    reader = open_for_reading(settings)
    try:
        found = [
            _status(
                settings,
                reader,
                integration,
                live_urls=sum(url.revoked_at is None for url in registry.urls(integration)),
            )
            for integration in registry.integrations()
        ]
    finally:
        reader.close()
        registry.close()
    say_if_copied(reader)
    if as_json:
        print_json([asdict(line) for line in found])
    elif found:
        columns = list(_Status.__dataclass_fields__)
        print_table(
            [name.replace("_", " ") for name in columns],
            [[getattr(line, name) for name in columns] for line in found],
        )
    else:
        click.echo('No integrations yet: customerio-pipeline integrations create "NAME"')


def _status(
    settings: Settings, reader: Reader, integration: Integration, *, live_urls: int
) -> _Status:
    schema = integration.schema
    with kept_still(settings.landing, schema):
        files = LandingListing(settings.landing, schema).files()
        state = reader.state(schema)
        loaded = state.settled(Releases(settings.landing, schema).offsets())
        waiting = pending_files(files, loaded)
        written = [file.path(settings.landing).stat().st_mtime for file in waiting]
    oldest = min(written, default=None)
    rows, rejected, last = _loads(reader, schema) if loaded else (0, 0, None)
    return _Status(
        schema=schema,
        state=integration.state,
        live_urls=live_urls,
        landed=sum(len(offsets) for offsets in landed_offsets(files).values()),
        waiting=count_pending(waiting, loaded),
        held=sum(map(len, state.held.values())),
        rows=rows,
        rejected=rejected,
        last_received_at=last,
        waiting_seconds=round(datetime.now(UTC).timestamp() - oldest, 1) if oldest else 0.0,
    )


def _loads(reader: Reader, schema: str) -> tuple[int, int, datetime | None]:
    try:
        result = reader.query(
            "SELECT sum(inserted)::BIGINT, sum(rejected)::BIGINT, max(received_to)"
            f' FROM "{schema}"._sdc_loads'
        )
    except WarehouseUnavailableError:
        return 0, 0, None
    inserted, rejected, last = result.rows[0]
    return inserted or 0, rejected or 0, last  # type: ignore[return-value]  # the query's types
