"""Where an answer that comes in ASGI's pieces goes out."""

import asyncio
from collections.abc import Callable

_ANSWER = b"HTTP/1.1 "
_CONTINUE = b"HTTP/1.1 100 "


class Outlet:
    """A transport as uvicorn's cycle of request and answer sees it: closing it is gentle.

    The head of an answer that comes in ASGI's pieces waits for the first piece of its body.
    """

    __slots__ = ("_close", "_head", "_transport", "is_closing")

    def __init__(
        self,
        transport: asyncio.Transport,
        close: Callable[[], None],
        is_closing: Callable[[], bool],
    ) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self.is_closing = is_closing

    def write(self, data: bytes) -> None:
        """Send a part of an answer; nothing once a client has reset the connection.

        We are told of that later.
        """
        if self._head:
            data = self._head + data
            self._head = b""
        elif data.startswith(_ANSWER) and not data.startswith(_CONTINUE):
            self._head = data
            return
        # uvloop raises where asyncio's own transports ignore it.
        if not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send a head that is to have no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close once everything is sent."""
        self.flush()
        self._close()
