"""The first page: every integration at a glance."""

from dataclasses import dataclass
from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency

from customerio_pipeline.management.overview import Figures, read_figures
from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration, IntegrationState


@dataclass(frozen=True, slots=True)
class _Warning:
    """What somebody should look at."""

    text: str
    page: str
    """Below the integration's address: there it is dealt with."""


@dataclass(frozen=True, slots=True)
class _Card:
    """What the dashboard shows of an integration."""

    integration: Integration
    figures: Figures
    warnings: list[_Warning]


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
    figures = read_figures(services, integration.schema)
    warnings = [_Warning(problem, "") for problem in figures.problems]
    if not live:
        warnings.append(_Warning("No live URL: no delivery can arrive.", "/urls"))
    if integration.state == IntegrationState.PAUSED:
        warnings.append(_Warning("Paused: events are received and kept, not loaded.", "/settings"))
    held = figures.progress.held if figures.progress else 0
    if held:
        text = (
            "1 delivery is held because of its signature."
            if held == 1
            else f"{held:,} deliveries are held because of their signatures."
        )
        warnings.append(_Warning(text, "/signatures"))
    return _Card(integration, figures, warnings)
