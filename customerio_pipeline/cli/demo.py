"""What ``up --demo`` adds: an integration, simulated events and a first look at the rows."""

import asyncio
import itertools
import json
import time
from contextlib import closing

import click

from customerio_pipeline.cli.output import print_table
from customerio_pipeline.errors import UnknownIntegrationError, UrlLimitError, WarehouseError
from customerio_pipeline.loading.target import QueryResult
from customerio_pipeline.registry.records import Integration, NewUrl
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import webhook_url
from customerio_pipeline.settings import Settings
from customerio_pipeline.simulator.events import generate
from customerio_pipeline.simulator.sending import send
from customerio_pipeline.warehouse import open_for_reading

_NAME = "Stitch Customerio"
_EVENTS_PER_SECOND = 20.0
_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 90.0
_WAREHOUSE_WAIT_SECONDS = 1.0

_QUERY = """\
SELECT object_type, metric, count(*) AS events, max(_sdc_received_at) AS newest
FROM {schema}.data GROUP BY object_type, metric ORDER BY events DESC, 1, 2 LIMIT 10"""


class Demo:
    """The demo's integration, and events sent to a webhook URL made for this run."""

    def __init__(self, settings: Settings, events: int | None) -> None:
        """Prepare to send `events`, or without end when None."""
        self._settings = settings
        self._events = events
        self._url = ""
        self._integration: Integration | None = None

    def prepare(self) -> None:
        """Create the integration where it is missing, and a URL, and print both.

        Raises:
            UrlLimitError: two URLs are live that no demo made; none of them is touched.
        """
        with closing(Registry.open(self._settings.registry)) as registry:
            try:
                integration = registry.find(_NAME)
            except UnknownIntegrationError:
                integration, new = registry.create(_NAME)
                self._remember(new)
            else:
                new = self._generate_url(registry, integration)
        self._integration = integration
        self._url = webhook_url(self._settings.public_url, new.token)
        click.echo(f"Integration  {integration.name} (schema {integration.schema})")
        click.echo(f"Webhook URL  {self._url}")

    async def send(self) -> None:
        """Send simulated events at a steady rate."""
        stream = generate(time.time_ns(), now=time.time)
        summary = await send(
            self._url, itertools.islice(stream, self._events), rate=_EVENTS_PER_SECOND
        )
        click.echo(f"{summary.acknowledged} simulated events were sent and acknowledged.")

    async def show_first_rows(self) -> None:
        """Wait for the first rows and print what a first query says about them."""
        if self._integration is None:
            return
        schema = self._integration.schema
        click.echo(f"\nSimulated events are on their way; the first rows of {schema}.data:\n")
        query = _QUERY.format(schema=schema)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (result := await asyncio.to_thread(self._query, query)) is None:
            if time.monotonic() > deadline:
                click.echo(
                    f"There are none after {_PATIENCE_SECONDS:g} s: Dagster's page of the"
                    f" sensor {schema}_sensor says why."
                )
                return
            await asyncio.sleep(_POLL_SECONDS)
        print_table(result.columns, result.rows)
        click.echo(f"\nThat was: customerio-pipeline query '{' '.join(query.split())}'")

    def _query(self, query: str) -> QueryResult | None:
        """Return the rows; None while there are none, or a load holds the warehouse."""
        quick = self._settings.model_copy(
            update={"warehouse_wait_seconds": _WAREHOUSE_WAIT_SECONDS}
        )
        try:
            with closing(open_for_reading(quick)) as reader:
                result = reader.query(query)
        except WarehouseError:
            return None
        return result if result.rows else None

    def _generate_url(self, registry: Registry, integration: Integration) -> NewUrl:
        """Make another URL: of the earlier ones only hashes are known.

        Two may be live. The oldest that an earlier demo made gives way, never one of the user's.
        """
        try:
            new = registry.generate_url(integration)
        except UrlLimitError:
            made = self._remembered()
            live = [url.id for url in registry.urls(integration) if url.is_live]
            replaced = next((url_id for url_id in live if url_id in made), None)
            if replaced is None:
                raise
            registry.revoke_url(integration, replaced)
            click.echo(f"Revoked      {replaced}, the URL of an earlier demo")
            new = registry.generate_url(integration)
        self._remember(new)
        return new

    def _remembered(self) -> list[str]:
        file = self._settings.home / "demo-urls.json"
        try:
            return [str(url_id) for url_id in json.loads(file.read_text())]
        except (OSError, ValueError):
            return []

    def _remember(self, new: NewUrl) -> None:
        """Note the URL's id, never its token, as one that a later demo may revoke."""
        file = self._settings.home / "demo-urls.json"
        file.write_text(json.dumps([*self._remembered(), new.id]))
