"""One request and its answer, as the application sees them; ready-made answers take a short way.

An ASGI server puts the head of each answer together anew and checks every part of it. The answers
of the webhook route never change, so they are bytes from the start: the application hands over
`Answer.message`, and what goes out is one piece.
"""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar.types import Message, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from receiver.http_protocol import Http1Protocol

_READY = "receiver.answer"


class Answer:
    """A response with a JSON object for a body, made once and sent many times."""

    __slots__ = ("_bytes", "message", "status")

    def __init__(self, status: HTTPStatus, content: dict[str, str], **headers: str) -> None:
        """Make all its forms; names of headers are given with underscores."""
        self.status = status
        body = msgspec.json.encode(content)
        lines = {"content-type": "application/json", "content-length": str(len(body))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        # By whether the connection is kept and whether the body is left out.
        self._bytes = {
            (keep_alive, is_head): _head(status, lines, keep_alive=keep_alive)
            + (b"" if is_head else body)
            for keep_alive in (True, False)
            for is_head in (True, False)
        }
        self.message = cast("Message", {"type": _READY, "answer": self})
        """What is given to the `send` of a request that is to have this answer."""

    def to_bytes(self, *, keep_alive: bool, is_head: bool = False) -> bytes:
        """Return it as it goes over a connection; the answer to HEAD is without its body."""
        return self._bytes[keep_alive, is_head]


def _head(status: HTTPStatus, headers: dict[str, str], *, keep_alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
        *(() if keep_alive else ("connection: close",)),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


class Exchange(RequestResponseCycle):
    """Uvicorn's, which also takes ready-made answers."""

    def __init__(self, protocol: "Http1Protocol", scope: Scope, *, keep_alive: bool) -> None:
        super().__init__(
            cast("Any", scope),
            protocol.transport,
            protocol.flow,
            protocol.logger,
            protocol.access_logger,
            protocol.access_log,
            protocol.server_state.default_headers,
            asyncio.Event(),
            protocol.expect_100_continue,
            keep_alive,
            protocol.on_response_complete,
        )
        self._write = protocol.write

    async def send(self, message: Any) -> None:  # noqa: ANN401  uvicorn's types are its own
        """Send an answer, ready-made or in ASGI's pieces."""
        if message["type"] != _READY:
            await super().send(message)
            return
        if self.response_started:
            raise RuntimeError("this request is answered already")
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self._write(
            message["answer"].to_bytes(
                keep_alive=self.keep_alive, is_head=self.scope["method"] == "HEAD"
            )
        )
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def receive(self) -> Any:  # noqa: ANN401  uvicorn's types are its own
        """Return what came of the body; at once when that is all of it."""
        if self.more_body or self.waiting_for_100_continue or not self.message_event.is_set():
            return await super().receive()
        self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}
