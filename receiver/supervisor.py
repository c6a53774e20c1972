"""The parent of the receiver's processes: it owns the port and keeps workers and sealer alive.

It handles no request itself, so there is nothing that could bring it down while workers come and
go and connections wait in the backlog (design C7).
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress

import structlog

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.settings import Settings, load_settings
from receiver.children import Child
from receiver.logs import configure_logs
from receiver.metrics import make_memory
from receiver.service_manager import notify
from receiver.tls import server_context

_KILL_AFTER_DRAIN_SECONDS = 2.0
# It may begin to work only now, and a whole segment takes a second; whoever stops us waits longer.
_LAST_SEALING_SECONDS = 5.0
_READY_SECONDS = 30.0

# By name only: it reads warehouses, and no process of the receiver may load what that takes.
_ADMIN_MODULE = "customerio_pipeline.management"

log = structlog.get_logger()


def supervise(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Run the receiver on `listener` until SIGTERM or SIGINT, then drain it.

    Raises:
        ReceiverError: certificate or key cannot be used.
    """
    server_context(settings)
    configure_logs("supervisor")
    host, port = listener.getsockname()[:2]
    log.info("listening", host=host, port=port, workers=workers)
    asyncio.run(_Supervisor(settings, listener, workers).run())


class _Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket, workers: int) -> None:
        self._settings = settings
        self._listener = listener
        self._count = workers
        # Children inherit the read end only: it ends when this process does.
        lifeline, _ = os.pipe()
        self._shared = {"lifeline": lifeline, "metrics": make_memory()}
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._workers: list[Child] = []
        self._leaving: list[Child] = []
        """Workers that only serve while others are replaced, or end."""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP replaces workers, sealer and admin process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        self._workers = self._start_workers()
        self._sealer = self._start_sealer()
        self._admin = self._start_admin()
        reloading = asyncio.create_task(self._keep_reloading())
        await self._stop.wait()
        reloading.cancel()
        with suppress(asyncio.CancelledError):
            await reloading
        log.info("draining")
        notify("STOPPING=1")
        await self._end(self._workers + self._leaving)
        # Last, so that it seals what the workers stored.
        await self._sealer.stop(time.monotonic() + _LAST_SEALING_SECONDS)
        if self._admin is not None:
            await self._admin.stop(time.monotonic() + _KILL_AFTER_DRAIN_SECONDS)
        log.info("stopped")

    async def _keep_reloading(self) -> None:
        await _all_ready(self._workers)
        # Even if not all are: they are started again, and connections wait in the backlog.
        notify("READY=1")
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self._reload()

    async def _reload(self) -> None:
        """Replace all processes by new ones, with the code and the settings of now."""
        try:
            settings = load_settings()
            server_context(settings)
        except PipelineError as error:
            log.error("reload_refused", reason=str(error))  # noqa: TRY400  the reason says it all
            return
        log.info("reloading")
        old = self._workers
        self._leaving = new = self._start_workers()
        # They have to serve first, so that there is never nobody.
        is_ready = await _all_ready(new)
        if is_ready:
            self._workers, self._leaving = new, old
        await self._end(self._leaving)
        self._leaving = []
        if not is_ready:
            log.error("reload_failed", reason="a new worker did not begin; the old ones go on")
            return
        self._settings = settings
        await self._sealer.stop(time.monotonic() + _READY_SECONDS)
        self._sealer = self._start_sealer()
        # One after the other: they listen on the same port, and old code cannot show new templates.
        if self._admin is not None:
            await self._admin.stop(time.monotonic() + _READY_SECONDS)
        self._admin = self._start_admin()
        log.info("reloaded")

    def _start_workers(self) -> list[Child]:
        descriptors = {"socket": self._listener.fileno(), **self._shared}
        return [Child("worker", descriptors, says_ready=True) for _ in range(self._count)]

    def _start_sealer(self) -> Child:
        return Child("sealer", self._shared, says_ready=True)

    def _start_admin(self) -> Child | None:
        if self._settings.admin_port is None:
            return None
        return Child("admin", self._shared, module=_ADMIN_MODULE)

    async def _end(self, workers: Iterable[Child]) -> None:
        kill_at = time.monotonic() + self._settings.drain_seconds + _KILL_AFTER_DRAIN_SECONDS
        await asyncio.gather(*(worker.stop(kill_at) for worker in workers))


async def _all_ready(workers: Iterable[Child]) -> bool:
    return all(await asyncio.gather(*(worker.wait_ready(_READY_SECONDS) for worker in workers)))
