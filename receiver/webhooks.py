"""The webhook route: authenticate, make durable, answer; the body is never parsed here.

A sender waits an hour after most refusals and holds back what follows (customerio-webhooks 2), so
everything authentic gets 200, or 503 while it cannot be stored (design C6).
"""

import asyncio
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, NamedTuple, Self

from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.signatures import INVALID, UNCHECKED, verdict
from customerio_pipeline.registry.records import LiveUrl
from customerio_pipeline.settings import Settings
from receiver.arrivals import Arrivals
from receiver.held_quota import HeldQuota
from receiver.http_exchange import Answer
from receiver.live_urls import LiveUrls
from receiver.logs import log_unexpected
from receiver.metrics import CLIENT_GONE, Tally
from receiver.numbering import Receipt
from receiver.refusals import NotStoredError, Refusal
from receiver.request_log import RequestLog
from receiver.senders import Senders
from receiver.spool import Spool
from receiver.storage import Storage
from receiver.tracing import Tracing

PATH = "/v1/webhooks"

_RETRY_AFTER_SECONDS = 5
_HEADER_AT = {name.encode(): at for at, name in enumerate(LANDED_HEADERS)}


STORED = Answer(HTTPStatus.OK, {"status": "stored"})
NO_WEBHOOK = Answer(HTTPStatus.NOT_FOUND, {"error": "Not Found"})
UNKNOWN_URL = Answer(HTTPStatus.UNAUTHORIZED, {"error": "unknown webhook URL"})
UNSIGNED = Answer(
    HTTPStatus.UNAUTHORIZED, {"error": "no signing key of this webhook made the signature"}
)
STRANGER = Answer(HTTPStatus.FORBIDDEN, {"error": "this address may not send"})
ONLY_POST = Answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "only POST is taken"}, allow="POST")
TOO_LARGE = Answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "the body is too large"})
TRY_AGAIN = Answer(
    HTTPStatus.SERVICE_UNAVAILABLE,
    {"error": "the delivery cannot be stored now, please repeat it"},
    retry_after=str(_RETRY_AFTER_SECONDS),
)


class _Call:
    """What is known of a request so far, for its line in the log."""

    __slots__ = ("refusal", "size", "stranger", "url_id")

    def __init__(self) -> None:
        self.url_id: str | None = None
        self.size = 0
        self.refusal: Refusal | None = None
        self.stranger: str | None = None
        """Address of a client that may not send."""


class _Headers(NamedTuple):
    """What matters of a request's headers."""

    landed: tuple[str | None, ...]
    announced_bytes: int
    """Length of the body, 0 when it is not said."""

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        """Read the headers of an ASGI scope."""
        landed: list[str | None] = [None] * len(LANDED_HEADERS)
        announced_bytes = 0
        for name, value in headers:
            at = _HEADER_AT.get(name)
            if at is not None:
                landed[at] = value.decode("latin-1")
            elif name == b"content-length":
                announced_bytes = int(value)
        return cls(tuple(landed), announced_bytes)


class _ClientGoneError(Exception):
    """The sender closed the connection before the body was complete."""


class _BodyTooLargeError(Exception):
    """The body is longer than CUSTOMERIO_MAX_BODY_BYTES."""


class Webhooks:
    """Takes deliveries."""

    def __init__(  # noqa: PLR0913, PLR0917  the parts of a worker
        self,
        urls: LiveUrls,
        storage: Storage,
        spool: Spool,
        tally: Tally,
        settings: Settings,
        request_log: RequestLog | None,
        tracing: Tracing | None,
    ) -> None:
        self._urls = urls
        self._storage = storage
        self._spool = spool
        self._tally = tally
        self._senders = Senders(settings.allow_networks, settings.trusted_proxies)
        self._arrivals = Arrivals(settings.receive_max_bytes)
        self._max_body_bytes = settings.max_body_bytes
        self._tolerance_seconds = settings.signature_tolerance_seconds
        self._held = HeldQuota(
            settings.spool, settings.held_max_deliveries, settings.held_max_bytes
        )
        self._request_log = request_log
        self._tracing = tracing

    async def close(self) -> None:
        """Release what the workers count in together."""
        self._held.close()

    def route(self) -> ASGIRouteHandler:
        """Return the route, for what does not come the short way."""

        @ASGIRouteHandler(PATH, is_mount=True, copy_scope=False)
        async def webhooks(scope: Scope, receive: Receive, send: Send) -> None:
            await self.serve(scope, receive, send)

        return webhooks

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whose path begins behind the mount's; no exception comes of it."""
        began = time.perf_counter_ns()
        call = _Call()
        answer = await self._answer(call, scope, receive)
        if answer is not None:
            await send(answer.message)
        took_ns = time.perf_counter_ns() - began
        if answer is STORED:
            self._tally.accepted(call.size, took_ns)
        else:
            self._tally.refused(_reason(call, answer))
        if self._tracing is not None:
            self._tracing.request(
                url_id=call.url_id,
                status=None if answer is None else answer.status,
                size=call.size,
                took_ns=took_ns,
                reason=call.refusal,
            )
        if self._request_log is not None:
            self._request_log.note(
                url_id=call.url_id,
                status=None if answer is None else answer.status.value,
                size=call.size,
                took_ns=took_ns,
                reason=call.refusal,
                client=call.stranger,
            )

    async def _answer(self, call: _Call, scope: Scope, receive: Receive) -> Answer | None:
        try:
            return await self._take(call, scope, receive)
        except NotStoredError as error:
            call.refusal = error.refusal
        except _BodyTooLargeError:
            return TOO_LARGE
        except _ClientGoneError:
            return None
        except asyncio.CancelledError:
            # The time for draining is over; without an answer the server would send a 500.
            call.refusal = Refusal.DRAINING
        except Exception as error:  # noqa: BLE001  a 500 would cost the sender an hour
            call.refusal = Refusal.INTERNAL_ERROR
            log_unexpected("webhook_failed", error)
        return TRY_AGAIN

    async def _take(self, call: _Call, scope: Scope, receive: Receive) -> Answer:
        if not scope["path"].startswith("/"):
            # A mount takes whatever begins like it: /v1/webhooksX is none of its paths.
            return NO_WEBHOOK
        if scope.get("method") != "POST":
            return ONLY_POST
        call.stranger = self._senders.refused((scope["client"] or ("",))[0], scope["headers"])
        if call.stranger is not None:
            return STRANGER
        url = await self._urls.find(_token(scope["path"]))
        if url is None:
            return UNKNOWN_URL
        call.url_id = url.url_id
        refusal = self._storage.refusal()
        if refusal is not None:
            raise NotStoredError(refusal)
        headers = _Headers.of(scope["headers"])
        if headers.announced_bytes > self._max_body_bytes:
            raise _BodyTooLargeError
        body = await self._read_body(call, receive)
        received_ns = time.time_ns()
        found = verdict(url.signatures, headers.landed, body, received_ns, self._tolerance_seconds)
        receipt = Receipt(url.schema, url.url_id, received_ns, found, headers.landed, body)
        if found == INVALID:
            return await self._hold(call, receipt, url)
        await self._spool.append(receipt)
        if found != UNCHECKED:
            self._tally.verified(found)
        return STORED

    async def _hold(self, call: _Call, receipt: Receipt, url: LiveUrl) -> Answer:
        """Store a delivery that no key signed, unless there are too many of them.

        One that is stale is Customer.io's: with a wrong clock all are, and none may be refused.
        """
        epoch, size = url.signatures.epoch, len(receipt.body)
        if not self._held.take(url.schema, epoch, size):
            call.refusal = Refusal.HELD_FULL
            return UNSIGNED
        try:
            await self._spool.append(receipt)
        except BaseException:
            self._held.give_back(url.schema, epoch, size)
            raise
        self._tally.verified(receipt.signature)
        return STORED

    async def _read_body(self, call: _Call, receive: Receive) -> bytes:
        """Read the body; Litestar's own limit does not guard a mount."""
        chunks: list[bytes] = []
        more = True
        self._arrivals.begin()
        try:
            while more:
                message: Any = await receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGoneError
                chunk = message.get("body", b"")
                chunks.append(chunk)
                call.size += len(chunk)
                if not self._arrivals.grow(call.size, len(chunk)):
                    raise NotStoredError(Refusal.RECEIVE_FULL)
                if call.size > self._max_body_bytes:
                    raise _BodyTooLargeError
                more = message.get("more_body", False)
        finally:
            self._arrivals.end(call.size)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _reason(call: _Call, answer: Answer | None) -> str:
    if call.refusal is not None:
        return call.refusal
    return CLIENT_GONE if answer is None else answer.status.name.lower()


def _token(path: str) -> str:
    """Return what follows the mount's path, without the slashes around it."""
    return path.strip("/")
