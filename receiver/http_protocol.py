"""HTTP/1.1 as a worker speaks it: uvicorn's protocol, hardened.

What differs: a request has a deadline and a longest head; what is sent ahead of an answer waits
unparsed, so that no client can make a worker hold more than a little; a client that closed its half
of the connection is answered; the connection is closed in such a way that the last answer arrives;
and it never changes to another protocol.
"""

import asyncio
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
from litestar.types import Scope
from uvicorn import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from receiver.connections import Connections, has_unread
from receiver.http_exchange import Answer, Exchange
from receiver.metrics import PIPELINE_LIMIT
from receiver.outlet import Outlet

MAX_HEAD_BYTES = 32 * 1024
# Requests that one client may send ahead of their answers; more are left unanswered.
_MAX_PIPELINED = 64
# So much is parsed at a time where a request may end in it; it holds fewer pipelined requests than
# the bound above, unless they are shorter than any that a webhook's URL allows.
_PIECE_BYTES = 4096


class _LastAnswer(NamedTuple):
    """What a client is told that is turned away."""

    reason: str
    """As metrics and log call it."""

    message: bytes
    """Nothing when the connection is merely closed."""


def _last_answer(status: HTTPStatus, error: str) -> _LastAnswer:
    answer = Answer(status, {"error": error})
    return _LastAnswer(status.name.lower(), answer.to_bytes(keep_alive=False))


_BAD_REQUEST = _last_answer(HTTPStatus.BAD_REQUEST, "this is no HTTP request")
_TOO_SLOW = _last_answer(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time")
_HEAD_TOO_LARGE = _last_answer(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large"
)
_TOO_MANY_PIPELINED = _LastAnswer(PIPELINE_LIMIT, b"")


class _TooManyPipelinedError(Exception):
    """More requests were sent ahead of their answers than are kept."""


class Http1Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._waits = connections
        self._raw: asyncio.Transport
        self.cycle: Exchange
        self._running: RequestResponseCycle | None = None
        """The request that is being answered."""

        self._is_arriving = False
        self._has_head = False
        self._is_skipped = False
        self._body_left = 0
        """Bytes that the arriving request has announced and not sent yet."""

        self._bodiless_bytes = 0
        """Bytes since the last one of a body."""

        self._held = b""
        """What came while a request was being answered."""

        self._is_at_end = False
        """Whether the client closed its half of the connection."""

        self._parting: bytes | None = None
        """What is sent after the last answer; nothing is read any more once it is set."""

        self._is_closing = False

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._raw = transport
        self.transport = self._outlet = Outlet(transport, self.close_gently, self.is_closing)  # type: ignore[assignment]
        self._waits.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._is_closing = True
        self._held = b""
        self._waits.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the request before it is still being answered."""
        if self._is_closing or self._parting is not None:
            return
        if self._held:
            self._hold(self._held + data)
        else:
            self._parse(memoryview(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio takes an answer
        """Keep the connection while whole requests wait for their answers."""
        self._is_at_end = True
        is_kept = self._is_answering() and not self._is_closing
        # TLS has no half-closed connections.
        return is_kept and self._raw.can_write_eof()

    def pause_writing(self) -> None:
        """Let the client read first."""
        super().pause_writing()
        self._waits.is_stuck(self)

    def resume_writing(self) -> None:
        """Write again."""
        super().resume_writing()
        self._waits.moves_again(self)

    # What an `Exchange` calls.

    def write(self, answer: bytes) -> None:
        """Send a whole answer; nothing once a client has reset the connection."""
        if not self._raw.is_closing():
            self._raw.write(answer)

    # What the worker's `Connections` call.

    def is_quiet(self) -> bool:
        """Tell whether nothing has come that was not read yet."""
        return not has_unread(self._raw.get_extra_info("socket").fileno())

    def time_out(self) -> None:
        """Answer 408 to the request that does not come to its end, and close."""
        self._part(_TOO_SLOW)

    def begin_drain(self) -> None:
        """Say in the next answer that it is the last."""
        if self._running is not None:
            self._running.keep_alive = False

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        self._waits.closed(self)
        self._raw.abort()

    def is_closing(self) -> bool:
        """Tell whether nothing can be answered any more."""
        return self._is_closing or self._raw.is_closing()

    def close_gently(self) -> None:
        """Close our half, then read until the client closes its own.

        A socket that is closed with unread bytes in it resets the connection, and the client might
        not see the answer.
        """
        if self._is_closing:
            return
        self._is_closing = True
        if self._is_at_end or not self._raw.can_write_eof():
            self._raw.close()
            return
        self._waits.is_closing(self)
        # Not before the answer, which is still in the transport's hands, is in the log.
        self.loop.call_soon(self._close_our_half)

    def _close_our_half(self) -> None:
        if not self._raw.is_closing():
            self._raw.write_eof()
            self.flow.resume_reading()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise _TooManyPipelinedError
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_arriving = True
        self._has_head = False
        self._bodiless_bytes = 0
        self._waits.request_begins(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those after the body are left out."""
        if self._has_head:
            return
        super().on_header(name, value)
        if len(name) == len(b"content-length") and name.lower() == b"content-length":
            self._body_left = int(value)

    def on_headers_complete(self) -> None:
        """Begin to answer a request, unless the parser skips its body."""
        parser = self.parser
        method = parser.get_method()
        self._is_skipped = parser.should_upgrade() and method != b"CONNECT"
        if self._is_skipped:
            return
        exchange = self._new_exchange(method)
        # Not before: a URL that cannot be parsed begins no request.
        self._has_head = True
        earlier, self.cycle = self.cycle, exchange
        if earlier is None or earlier.response_complete:
            self._start_asgi_task(exchange, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))

    def _new_exchange(self, method: bytes) -> Exchange:
        """Put together what the application is told of a request."""
        version = self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope: Scope = {  # type: ignore[assignment]
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self.scheme,
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "state": self.app_state.copy(),
        }
        is_kept = not self._waits.is_draining and version != "1.0"
        keep_alive = is_kept and self.parser.should_keep_alive()
        return Exchange(self, scope, keep_alive=keep_alive)

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._body_left -= len(body)
        self._bodiless_bytes = 0
        exchange = self.cycle
        if exchange.response_complete:
            return
        exchange.body += body
        if len(exchange.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        exchange.message_event.set()

    def on_message_complete(self) -> None:
        """End a request that was begun."""
        if self._is_skipped:
            return
        self._is_arriving = False
        self._body_left = 0
        self._waits.request_is_whole(self)
        exchange = self.cycle
        if not exchange.response_complete:
            exchange.more_body = False
            exchange.message_event.set()
        if not self._is_answering():
            self._waits.is_idle(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401
        self._running = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """Go on with what was sent ahead of this answer."""
        self._outlet.flush()
        self.server_state.total_requests += 1
        self._running = None
        if self.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            self._waits.request_goes_on(self)
        elif self._parting is not None:
            self._send_parting(self._parting)
        else:
            held, self._held = self._held, b""
            self._parse(memoryview(held))
            self._wait_for_more()

    def _wait_for_more(self) -> None:
        if self._held or self._is_answering() or self._parting is not None:
            return
        if self._is_at_end:
            self.close_gently()
            return
        if not self._is_arriving:
            self._waits.is_idle(self)
        self.flow.resume_reading()

    def _is_answering(self) -> bool:
        """Tell whether a whole request waits for its answer."""
        return self._running is not None and not (self._is_arriving and self._running is self.cycle)

    def _hold(self, data: bytes) -> None:
        self._held = data
        self.flow.pause_reading()

    def _parse(self, data: memoryview) -> None:
        try:
            while data:
                if self._is_answering():
                    self._hold(bytes(data))
                    return
                length = max(_PIECE_BYTES, self._body_left)
                self._feed(data[:length])
                data = data[length:]
                if self._bodiless_bytes > MAX_HEAD_BYTES:
                    self._part(_HEAD_TOO_LARGE)
                    return
        except httptools.HttpParserError as error:
            is_flood = isinstance(error.__context__, _TooManyPipelinedError)
            self._part(_TOO_MANY_PIPELINED if is_flood else _BAD_REQUEST)

    def _feed(self, data: memoryview) -> None:
        """Parse a piece, and once more the head of a request whose body would be skipped.

        Java's HTTP client and some proxies send ``Upgrade: h2c`` with whatever they post, which RFC
        9110 section 7.8 allows to ignore. The parser skips the body of such a request; uvicorn
        would hand on the request without it.
        """
        self._bodiless_bytes += len(data)
        while (skipped_at := self._feed_until_skip(data)) is not None:
            data = data[skipped_at:]
            head = self._head_without_upgrade()
            # The old parser may take the connection for closed.
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.parser.feed_data(head)

    def _feed_until_skip(self, data: memoryview) -> int | None:
        """Return where the parser began to skip a body, None when all of `data` is parsed."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_skipped:
                skipped_at: int = upgrade.args[0]
                return skipped_at
        return None

    def _head_without_upgrade(self) -> bytes:
        lines = [
            b"%b %b HTTP/%b"
            % (self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
            *(b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"),
        ]
        return b"\r\n".join([*lines, b"", b""])

    def _part(self, answer: _LastAnswer) -> None:
        """Read nothing more; send `answer` after those to earlier requests, then close."""
        if self._is_closing or self._parting is not None:
            return
        self._waits.turned_away.note(answer.reason, self.client[0] if self.client else None)
        self._parting = answer.message
        self._held = b""
        self._waits.request_is_whole(self)
        if self._is_arriving and self._has_head:
            self._give_up_request(self.cycle)
        if self._running is None and not self.pipeline:
            self._send_parting(self._parting)

    def _give_up_request(self, cycle: RequestResponseCycle) -> None:
        """Let the request that is arriving end without a body."""
        if cycle.response_started:
            self._parting = b""
        elif cycle is self._running:
            cycle.disconnected = True
            cycle.message_event.set()
            self._running = None
        else:
            self.pipeline.popleft()

    def _send_parting(self, answer: bytes) -> None:
        if answer:
            self.write(answer)
        self.close_gently()
