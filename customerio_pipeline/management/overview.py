"""An integration at a glance, and the guide that connects Customer.io to it."""

from typing import Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services


@get("/integrations/{schema:str}", sync_to_thread=True)
def overview(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the integration."""
    integration = services.registry.of_schema(schema)
    live = [url for url in services.registry.urls(integration) if url.is_live]
    return page(request, "overview.html", integration=integration, tab="overview", live=live)


@get("/integrations/{schema:str}/connect", sync_to_thread=True)
def connect(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show how to connect Customer.io, click by click."""
    integration = services.registry.of_schema(schema)
    return page(request, "connect.html", integration=integration, tab="connect")
