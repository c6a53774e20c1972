"""The server of a worker: uvicorn's, with its own way to accept, to supervise and to drain."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable

import uvicorn

from receiver.accepting import Acceptor
from receiver.connections import Connections
from receiver.http_protocol import Http1Protocol

# So long a connection without a request is kept while draining: a request that was already on its
# way is answered. Those who call often learn from an answer that the connection ends.
_QUIET_SECONDS = 1.0
_POLL_SECONDS = 0.05
# For the answers to requests whose time is over.
_LAST_ANSWERS_SECONDS = 0.5
_NEW_OBJECTS = 10_000


class Server(uvicorn.Server):
    """Serves on one inherited socket until it is told to exit, then drains."""

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        *,
        tls: ssl.SSLContext | None,
        drain_seconds: float,
        when_serving: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._connections = connections
        self._tls = tls
        self._drain_seconds = drain_seconds
        self._when_serving = when_serving
        self._acceptor: Acceptor

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the application, then accept connections."""
        if not sockets:
            raise ValueError("there is no socket to serve on")
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise SystemExit(uvicorn.config.STARTUP_FAILURE)
        _spare_the_collector()
        self._acceptor = Acceptor(sockets[0], self._protocol, self._connections, self._tls)
        self._acceptor.start()
        self.started = True
        self._when_serving()

    def _protocol(self) -> Http1Protocol:
        return Http1Protocol(self.config, self.server_state, self.lifespan.state, self._connections)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: look for connections that are late."""
        self._connections.sweep()
        should_exit = await super().on_tick(counter)
        if not should_exit:
            self._acceptor.start()
        return should_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: accept no more, answer what comes on open connections, close those left."""
        self._acceptor.stop()
        for listener in sockets or ():
            listener.close()
        self._connections.begin_drain()
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._drain_seconds
        quiet_seconds = min(_QUIET_SECONDS, self._drain_seconds / 2)
        close_idle_at = loop.time() + quiet_seconds
        while self._is_busy() and loop.time() < give_up_at:
            await asyncio.sleep(_POLL_SECONDS)
            self._connections.sweep()
            if loop.time() >= close_idle_at:
                self._connections.close_idle(quiet_seconds)
        await self._end_requests()
        await self.lifespan.shutdown()

    def _is_busy(self) -> bool:
        return bool(self._connections.all or self.server_state.tasks or self._acceptor.beginning)

    async def _end_requests(self) -> None:
        """Answer 503 to what is left, and close."""
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LAST_ANSWERS_SECONDS)
        for connection in list(self._connections.all):
            connection.close_gently()


def _spare_the_collector() -> None:
    """Let the garbage collector pass over what lives as long as the process.

    Looking for cycles in all of it, after every 700 new objects, took part of each request's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
