"""The processes of the receiver's parent, each started again whenever it ends."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress

import structlog

_SETTLED_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

log = structlog.get_logger()


class Child:
    """A process that runs ``python -m <module>``, the code as it is on disk now."""

    def __init__(
        self,
        name: str,
        descriptors: dict[str, int],
        *,
        module: str | None = None,
        says_ready: bool = False,
    ) -> None:
        """Start it.

        Args:
            name: as the log calls it.
            descriptors: inherited ones, by the option that tells their number.
            module: what it runs; ``receiver.<name>`` when None.
            says_ready: whether it takes ``--ready``, a pipe it writes to once it works; it is not
                asked to end before.
        """
        self._name = name
        self._module = module or f"receiver.{name}"
        self._descriptors = descriptors
        self._says_ready = says_ready
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._began: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_alive())

    async def wait_ready(self, seconds: float) -> bool:
        """Wait until it serves for the first time; false when it ended before, or time is over."""
        done, _ = await asyncio.wait([self._began], timeout=seconds)
        return bool(done) and self._began.result()

    async def stop(self, kill_at: float) -> None:
        """Ask the process to end; kill it at `kill_at` (monotonic clock)."""
        self._stopping.set()
        if self._says_ready:
            # Earlier, the signal would end it in the middle of its imports, its work undone.
            await asyncio.wait([self._began], timeout=kill_at - time.monotonic())
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
            self._note_began(is_ready=False)
            if self._stopping.is_set():
                return
            log.warning("ended_unasked", child=self._name, code=code)
            is_settled = time.monotonic() - began > _SETTLED_SECONDS
            pause = 0.0 if is_settled else min(2 * pause + _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run(self) -> int | None:
        """Run the process once; return its exit code, None when it could not be started."""
        try:
            descriptors = dict(self._descriptors)
            if self._says_ready:
                descriptors["ready"] = self._await_ready()
            try:
                process = await self._start(descriptors)
            finally:
                if self._says_ready:
                    os.close(descriptors["ready"])
        except OSError as error:
            log.error("not_started", child=self._name, reason=error.strerror)  # noqa: TRY400
            return None
        log.info("started", child=self._name, pid=process.pid)
        self._process = process
        if self._stopping.is_set():
            self._signal(signal.SIGTERM)
        return await process.wait()

    async def _start(self, descriptors: dict[str, int]) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            # Not from the working directory: a folder there may bear the package's name.
            "-P",
            "-m",
            self._module,
            *(f"--{name}={number}" for name, number in descriptors.items()),
            stdin=DEVNULL,
            pass_fds=tuple(descriptors.values()),
            # Ctrl-C reaches the parent alone, which drains them.
            process_group=0,
        )

    def _await_ready(self) -> int:
        """Return the write end of a new pipe; what comes through it is waited for."""
        loop = asyncio.get_running_loop()
        read_end, write_end = os.pipe()

        def read() -> None:
            is_ready = bool(os.read(read_end, 1))
            loop.remove_reader(read_end)
            os.close(read_end)
            if is_ready:
                self._note_began(is_ready=True)

        loop.add_reader(read_end, read)
        return write_end

    def _note_began(self, *, is_ready: bool) -> None:
        if not self._began.done():
            self._began.set_result(is_ready)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
