"""The parent of the receiver's processes: it owns the port and keeps workers and sealer alive.

It handles no request itself, so there is nothing that could bring it down while workers come and
go and connections wait in the backlog (design C7).
"""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

import structlog

from customerio_pipeline.settings import Settings
from receiver.logs import configure_logs
from receiver.metrics import make_memory

_KILL_AFTER_DRAIN_SECONDS = 1.0
_SETTLED_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger()


def supervise(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Run the receiver on `listener` until SIGTERM or SIGINT, then drain it."""
    configure_logs("supervisor")
    host, port = listener.getsockname()[:2]
    log.info("listening", host=host, port=port, workers=workers)
    asyncio.run(_supervise(settings, listener, workers))


async def _supervise(settings: Settings, listener: socket.socket, workers: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Children inherit the read end only: it ends when this process does.
    lifeline, _ = os.pipe()
    shared = {"lifeline": lifeline, "metrics": make_memory()}
    serving = [_Child("worker", {"socket": listener.fileno(), **shared}) for _ in range(workers)]
    sealer = _Child("sealer", shared)
    admin = None if settings.admin_port is None else _Child("admin", shared)
    await stop.wait()
    log.info("draining")
    kill_at = time.monotonic() + settings.drain_seconds + _KILL_AFTER_DRAIN_SECONDS
    await asyncio.gather(*(worker.stop(kill_at) for worker in serving))
    # Last, so that it seals what the workers stored.
    await sealer.stop(kill_at + _KILL_AFTER_DRAIN_SECONDS)
    if admin is not None:
        await admin.stop(kill_at + 2 * _KILL_AFTER_DRAIN_SECONDS)
    log.info("stopped")


class _Child:
    """A process that is started again whenever it ends."""

    def __init__(self, name: str, descriptors: dict[str, int]) -> None:
        self._name = name
        self._descriptors = descriptors
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(self._keep_alive())

    async def stop(self, kill_at: float) -> None:
        """Ask the process to end; kill it at `kill_at` (monotonic clock)."""
        self._stopping.set()
        self._signal(signal.SIGTERM)
        _, running = await asyncio.wait([self._task], timeout=kill_at - time.monotonic())
        if running:
            log.warning("killed", child=self._name)
            self._signal(signal.SIGKILL)
            await self._task

    async def _keep_alive(self) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._run()
            if self._stopping.is_set():
                return
            log.warning("ended_unasked", child=self._name, code=code)
            is_settled = time.monotonic() - began > _SETTLED_SECONDS
            pause = 0.0 if is_settled else min(2 * pause + _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run(self) -> int | None:
        """Run the process once; return its exit code, None when it could not be started."""
        options = [f"--{name}={number}" for name, number in self._descriptors.items()]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Not from the working directory: a folder there may bear the package's name.
                "-P",
                "-m",
                f"receiver.{self._name}",
                *options,
                stdin=DEVNULL,
                pass_fds=tuple(self._descriptors.values()),
                # Ctrl-C reaches the parent alone, which drains them.
                process_group=0,
            )
        except OSError as error:
            log.error("not_started", child=self._name, reason=error.strerror)  # noqa: TRY400
            return None
        log.info("started", child=self._name, pid=self._process.pid)
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
