"""The page that shows a webhook URL, the only time that it can be shown."""

from typing import Any
from urllib.parse import urlsplit

from litestar import Response
from litestar.background_tasks import BackgroundTask

from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration, NewUrl
from customerio_pipeline.registry.tokens import webhook_url

# Hosts of a public URL that Customer.io cannot reach.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def new_url_page(  # noqa: PLR0913  what was made, and for whom
    request: PageRequest,
    services: Services,
    integration: Integration,
    url: NewUrl,
    *,
    is_first: bool,
    task: BackgroundTask | None = None,
) -> Response[Any]:
    """Show the URL with its Copy button; answers the POST, so that no address leads to it."""
    public_url = services.settings.public_url
    answer = page(
        request,
        "new_url.html",
        integration=integration,
        url_id=url.id,
        webhook_url=webhook_url(public_url, url.token),
        is_local=urlsplit(public_url).hostname in _LOOPBACK,
        is_first=is_first,
    )
    answer.background = task
    return answer
