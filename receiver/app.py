"""The receiver's web application, one per worker process."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.status_codes import HTTP_503_SERVICE_UNAVAILABLE

from customerio_pipeline.settings import Settings
from receiver.health import HealthNotes, live, ready_route
from receiver.live_urls import LiveUrls
from receiver.logs import log_unexpected
from receiver.metrics import Tally
from receiver.spool import Spool
from receiver.storage import Storage
from receiver.tracing import Tracing
from receiver.webhooks import Webhooks

log = structlog.get_logger()


def create_app(settings: Settings, tally: Tally) -> Litestar:
    """Make the application; nothing is opened before its lifespan begins."""
    urls = LiveUrls(settings.registry)
    spool = Spool(settings, tally)
    storage = Storage(settings, spool)
    tracing = Tracing.from_environment()
    webhooks = Webhooks(urls, storage, spool, tally, settings, tracing)

    notes = HealthNotes(tally, spool, storage, urls)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if tracing is not None:
                # Ends last: what is stored does not wait for it.
                stack.push_async_callback(tracing.close)
            for part in (spool, storage, urls, notes):
                stack.push_async_callback(part.close)
                await part.open()
            yield

    return Litestar(
        [webhooks.route(), live, ready_route(urls, storage)],
        lifespan=[lifespan],
        exception_handlers={Exception: _answer_exception},
        openapi_config=None,
        # Litestar's own logging names the path.
        logging_config=None,
    )


def _answer_exception(
    request: Request[Any, Any, State], error: Exception
) -> Response[dict[str, str]]:
    """Answer a request that no route took, or whose route failed; never with a 500."""
    if isinstance(error, HTTPException):
        log.info("request", method=request.method, status=error.status_code)
        return Response(
            {"error": error.detail}, status_code=error.status_code, headers=error.headers
        )
    log_unexpected("request_failed", error)
    return Response({"error": "something went wrong"}, status_code=HTTP_503_SERVICE_UNAVAILABLE)
