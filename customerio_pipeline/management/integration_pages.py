"""The pages of one integration that change it: pause, resume, rename, delete."""

from typing import Any

import structlog
from litestar import Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.status_codes import HTTP_422_UNPROCESSABLE_ENTITY

from customerio_pipeline.errors import (
    RegistryError,
    RegistryUnavailableError,
    UnknownIntegrationError,
)
from customerio_pipeline.management.pages import Form, PageRequest, page, see
from customerio_pipeline.management.services import Services
from customerio_pipeline.orchestration.reload import reload_definitions
from customerio_pipeline.registry.records import Integration

log = structlog.get_logger()


@get("/integrations/{schema:str}/settings", sync_to_thread=True)
def show_settings(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show what can be changed of an integration."""
    integration = services.registry.of_schema(schema)
    return _settings(request, integration, integration.name)


@post("/integrations/{schema:str}/rename", sync_to_thread=True)
def rename(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    form: NamedDependency[Form],
) -> Response[Any]:
    """Give it another display name."""
    integration = services.registry.of_schema(schema)
    name = form.get("name", "")
    try:
        services.registry.rename(integration, name)
    except (RegistryUnavailableError, UnknownIntegrationError):
        raise
    except RegistryError as error:
        return _settings(request, integration, name, {"name": str(error)})
    log.info("integration_renamed", schema=schema)
    return _changed(services, f"/integrations/{schema}/settings", "renamed")


@post("/integrations/{schema:str}/pause", sync_to_thread=True)
def pause(services: NamedDependency[Services], schema: FromPath[str]) -> Response[Any]:
    """Stop loading."""
    services.registry.pause(services.registry.of_schema(schema))
    log.info("integration_paused", schema=schema)
    return _changed(services, f"/integrations/{schema}", "paused")


@post("/integrations/{schema:str}/resume", sync_to_thread=True)
def resume(services: NamedDependency[Services], schema: FromPath[str]) -> Response[Any]:
    """Load again."""
    services.registry.resume(services.registry.of_schema(schema))
    log.info("integration_resumed", schema=schema)
    return _changed(services, f"/integrations/{schema}", "resumed")


@get("/integrations/{schema:str}/delete", sync_to_thread=True)
def ask_delete(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Ask whether it shall really be deleted, and say what stays."""
    integration = services.registry.of_schema(schema)
    live = [url for url in services.registry.urls(integration) if url.is_live]
    return page(request, "delete.html", integration=integration, live=live)


@post("/integrations/{schema:str}/delete", sync_to_thread=True)
def delete(services: NamedDependency[Services], schema: FromPath[str]) -> Response[Any]:
    """Delete it."""
    services.registry.delete(services.registry.of_schema(schema))
    log.info("integration_deleted", schema=schema)
    return _changed(services, "/", "deleted")


def _changed(services: Services, path: str, done: str) -> Response[Any]:
    answer = see(path, done)
    answer.background = BackgroundTask(reload_definitions, services.settings)
    return answer


def _settings(
    request: PageRequest,
    integration: Integration,
    name: str,
    errors: dict[str, str] | None = None,
) -> Response[Any]:
    return page(
        request,
        "settings.html",
        status_code=HTTP_422_UNPROCESSABLE_ENTITY if errors else 200,
        integration=integration,
        tab="settings",
        name=name,
        errors=errors or {},
    )
