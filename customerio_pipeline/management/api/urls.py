"""Webhook URLs of an integration: list, generate, revoke."""

from datetime import UTC, datetime

import structlog
from litestar import Controller, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from msgspec import structs

from customerio_pipeline.errors import UnknownUrlError, UrlLimitError
from customerio_pipeline.management.api.bodies import NewUrl, UsedUrl, WebhookUrl
from customerio_pipeline.management.api.problems import conflict, documented
from customerio_pipeline.management.pages import PageRequest
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.steps import MAX_LIVE_URLS
from customerio_pipeline.registry.tokens import webhook_url

log = structlog.get_logger()


class Urls(Controller):
    """The webhook URLs of one."""

    path = "/integrations/{schema:str}/urls"
    tags = ["urls"]  # noqa: RUF012  as Litestar declares it

    @get(
        operation_id="listUrls",
        summary="List the webhook URLs",
        responses=documented(404),
        sync_to_thread=True,
    )
    def list_urls(
        self, services: NamedDependency[Services], schema: FromPath[str]
    ) -> list[UsedUrl]:
        """Return every URL that the integration ever had, without its secret, oldest first."""
        from customerio_pipeline.verifying.activity import safe_to_revoke

        urls = services.registry.urls(services.registry.of_schema(schema))
        now = datetime.now(UTC)
        live = {url.id: url.created_at for url in urls if url.is_live}
        uses = services.activity(schema).use_of_urls(now, live)
        safe = safe_to_revoke(list(live), uses, now)
        return [
            UsedUrl(
                **structs.asdict(WebhookUrl.of(url)),
                last_used_at=uses[url.id].last_used if url.id in uses else None,
                calls_24h=uses[url.id].calls if url.id in uses else 0,
                safe_to_revoke=url.id in safe,
            )
            for url in urls
        ]

    @post(
        operation_id="generateUrl",
        summary="Generate a further webhook URL",
        responses=documented(404, 409),
        sync_to_thread=True,
    )
    def generate_url(
        self, request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
    ) -> NewUrl:
        """The answer holds the URL, a secret: in this answer and in no other."""
        integration = services.registry.of_schema(schema)
        try:
            url = services.registry.generate_url(integration)
        except UrlLimitError:
            raise conflict(
                f"There are {MAX_LIVE_URLS} live URLs already: revoke one first."
            ) from None
        log.info("url_generated", schema=schema, url_id=url.id, api_token=request.auth)
        return NewUrl(
            url_id=url.id, webhook_url=webhook_url(services.settings.public_url, url.token)
        )

    @delete(
        "/{url_id:str}",
        operation_id="revokeUrl",
        summary="Revoke a webhook URL",
        responses=documented(404, 409),
        sync_to_thread=True,
    )
    def revoke_url(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        url_id: FromPath[str],
    ) -> None:
        """Within a second no delivery to it is taken any more."""
        integration = services.registry.of_schema(schema)
        try:
            services.registry.revoke_url(integration, url_id)
        except UnknownUrlError:
            if url_id in {url.id for url in services.registry.urls(integration)}:
                raise conflict(f'The URL "{url_id}" is revoked already.') from None
            raise NotFoundException(f'The integration has no URL "{url_id}".') from None
        log.info("url_revoked", schema=schema, url_id=url_id, api_token=request.auth)
