"""Webhook URLs of an integration: list, generate, revoke."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_409_CONFLICT

from customerio_pipeline.errors import PipelineError, UnknownUrlError, UrlLimitError
from customerio_pipeline.management.pages import PageRequest, page, see
from customerio_pipeline.management.services import Services
from customerio_pipeline.management.shown_once import new_url_page
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.registry.steps import MAX_LIVE_URLS

if TYPE_CHECKING:
    from customerio_pipeline.verifying.activity import UrlUse

log = structlog.get_logger()


@get("/integrations/{schema:str}/urls", sync_to_thread=True)
def show_urls(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the URLs, without the tokens that nobody knows any more."""
    return _urls(request, services, services.registry.of_schema(schema))


@post("/integrations/{schema:str}/urls", sync_to_thread=True)
def generate(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Make a further URL and show it, this once."""
    integration = services.registry.of_schema(schema)
    try:
        url = services.registry.generate_url(integration)
    except UrlLimitError:
        problem = f"There are {MAX_LIVE_URLS} live URLs already: revoke one first."
        return _urls(request, services, integration, problem=problem)
    log.info("url_generated", schema=schema, url_id=url.id)
    return new_url_page(request, services, integration, url, is_first=False)


@get("/integrations/{schema:str}/urls/{url_id:str}/revoke", sync_to_thread=True)
def ask_revoke(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    url_id: FromPath[str],
) -> Response[Any]:
    """Ask whether the URL shall really be revoked."""
    integration = services.registry.of_schema(schema)
    live = {url.id: url for url in services.registry.urls(integration) if url.is_live}
    if url_id not in live:
        return _urls(request, services, integration, problem=_not_live(url_id))
    others = [url for url in live.values() if url.id != url_id]
    return page(request, "revoke.html", integration=integration, url=live[url_id], others=others)


@post("/integrations/{schema:str}/urls/{url_id:str}/revoke", sync_to_thread=True)
def revoke(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    url_id: FromPath[str],
) -> Response[Any]:
    """Revoke the URL."""
    integration = services.registry.of_schema(schema)
    try:
        services.registry.revoke_url(integration, url_id)
    except UnknownUrlError:
        return _urls(request, services, integration, problem=_not_live(url_id))
    log.info("url_revoked", schema=schema, url_id=url_id)
    return see(f"/integrations/{schema}/urls", "revoked")


def _not_live(url_id: str) -> str:
    return f'"{url_id}" is no live URL of this integration; perhaps it is revoked already.'


def _urls(
    request: PageRequest,
    services: Services,
    integration: Integration,
    *,
    problem: str | None = None,
) -> Response[Any]:
    from customerio_pipeline.verifying.activity import safe_to_revoke

    urls = services.registry.urls(integration)
    live = [url for url in urls if url.is_live]
    uses: Mapping[str, UrlUse] = {}
    now = datetime.now(UTC)
    status = HTTP_409_CONFLICT if problem else HTTP_200_OK
    try:
        activity = services.activity(integration.schema)
        uses = activity.use_of_urls(now, {url.id: url.created_at for url in live})
    except PipelineError as error:
        problem = problem or str(error)
    return page(
        request,
        "urls.html",
        status_code=status,
        integration=integration,
        tab="urls",
        live=live,
        uses=uses,
        safe=safe_to_revoke([url.id for url in live], uses, now),
        revoked=[url for url in reversed(urls) if not url.is_live],
        is_full=sum(url.is_live for url in urls) >= MAX_LIVE_URLS,
        problem=problem,
    )
