"""The first page: every integration at a glance."""

from dataclasses import dataclass
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration, IntegrationState


@dataclass(frozen=True, slots=True)
class _Card:
    """What the dashboard shows of an integration."""

    integration: Integration
    live_urls: int
    warnings: list[str]


@get("/", sync_to_thread=True)
def dashboard(request: PageRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Show the integrations."""
    return page(request, "dashboard.html", cards=_cards(services))


@get("/cards", sync_to_thread=True)
def cards(request: PageRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Show them as they are now: the page asks for this part again and again."""
    return page(request, "cards.html", cards=_cards(services))


def _cards(services: Services) -> list[_Card]:
    return [_card(services, integration) for integration in services.registry.integrations()]


def _card(services: Services, integration: Integration) -> _Card:
    live = [url for url in services.registry.urls(integration) if url.is_live]
    warnings = []
    if not live:
        warnings.append("No live URL: no delivery can arrive.")
    if integration.state == IntegrationState.PAUSED:
        warnings.append("Paused: events are received and kept, not loaded.")
    return _Card(integration, len(live), warnings)
