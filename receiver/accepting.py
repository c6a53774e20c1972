"""Accepting connections: up to a limit, from a socket that several processes share (design C7)."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

import structlog

from receiver.connections import Connections
from receiver.metrics import CONNECTION_LIMIT

# Another worker may be less busy.
_AT_ONCE = 16
# A client that is slower is slower than its own deadline allows.
_HANDSHAKE_SECONDS = 4.0
_TLS_SHUTDOWN_SECONDS = 2.0
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = structlog.get_logger()


class Acceptor:
    """Takes connections as they come; at the limit, a new one takes the place of another."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        connections: Connections,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._tls = tls
        self._beginning: dict[asyncio.Task[None], None] = {}
        self._is_accepting = False

    def start(self) -> None:
        """Accept from now on; after a pause for want of room, too."""
        if not self._is_accepting:
            self._is_accepting = True
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Accept no more; what waits in the backlog is left to others."""
        if self._is_accepting:
            self._is_accepting = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    @property
    def beginning(self) -> int:
        """Connections whose TLS handshake goes on."""
        return len(self._beginning)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._has_room():
                # Until the next tick: they wait in the backlog.
                self.stop()
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_DESCRIPTORS:
                    raise
                log.warning("not_accepted", reason=error.strerror)
                self._connections.make_room()
                self.stop()
                return
            self._begin(connection)

    def _has_room(self) -> bool:
        if len(self._connections.all) + self.beginning < self._connections.most:
            return True
        for task in self._beginning:
            if self._tls is not None:
                self._connections.turned_away.note(CONNECTION_LIMIT)
                task.cancel()
                return True
        return self._connections.make_room()

    def _begin(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(connection))
        self._beginning[task] = None
        task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[None]) -> None:
        del self._beginning[task]

    async def _connect(self, connection: socket.socket) -> None:
        tls = self._tls
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                connection,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else _HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=None if tls is None else _TLS_SHUTDOWN_SECONDS,
            )
        except OSError:
            # It is gone already, too slow, or speaks no TLS; that is its own affair.
            connection.close()
