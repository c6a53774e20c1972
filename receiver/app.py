"""The receiver's web application, one per worker process."""

from collections.abc import AsyncIterator, Coroutine
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
from receiver.request_log import RequestLog
from receiver.spool import Spool
from receiver.storage import Storage
from receiver.tracing import Tracing
from receiver.webhooks import PATH, Webhooks

log = structlog.get_logger()

_BEGIN = PATH + "/"


def create_app(settings: Settings, tally: Tally) -> Litestar:
    """Make the application; nothing is opened before its lifespan begins."""
    urls = LiveUrls(settings.registry)
    spool = Spool(settings, tally)
    storage = Storage(settings, spool)
    tracing = Tracing.from_environment()
    request_log = RequestLog() if settings.access_log else None
    webhooks = Webhooks(urls, storage, spool, tally, settings, request_log, tracing)

    notes = HealthNotes(tally, spool, storage, urls)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if request_log is not None:
                stack.callback(request_log.write)
            if tracing is not None:
                # Ends last: what is stored does not wait for it.
                stack.push_async_callback(tracing.close)
            stack.push_async_callback(webhooks.close)
            for part in (spool, storage, urls, notes):
                stack.push_async_callback(part.close)
                await part.open()
            yield

    return _App(
        webhooks,
        [webhooks.route(), live, ready_route(urls, storage)],
        lifespan=[lifespan],
        exception_handlers={Exception: _answer_exception},
        openapi_config=None,
        # Litestar's own logging names the path.
        logging_config=None,
    )


class _App(Litestar):
    """Litestar, with a short way to the webhook route.

    Its routing, its check of the Host header and its care for exceptions take half of a delivery's
    time, and the route needs none of them.
    """

    def __init__(self, webhooks: Webhooks, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **options)
        self._serve = webhooks.serve

    def __call__(
        self,
        scope: Any,  # noqa: ANN401  of requests and of the lifespan
        receive: Any,  # noqa: ANN401
        send: Any,  # noqa: ANN401
    ) -> Coroutine[Any, Any, None]:
        """Answer a request, or begin and end with the server."""
        if scope["type"] == "http" and scope["path"].startswith(_BEGIN):
            scope["path"] = scope["path"].removeprefix(PATH)
            return self._serve(scope, receive, send)
        return super().__call__(scope, receive, send)


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
