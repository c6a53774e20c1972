"""Whether what is accepted now can be kept: room in the spool, and a landing folder that works."""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import structlog

from customerio_pipeline.landing.folders import make_folders
from customerio_pipeline.settings import Settings
from receiver.copied_slots import copied_folders
from receiver.refusals import Refusal
from receiver.slots import list_segments, slot_folders
from receiver.spool import Spool

_CHECK_EVERY_SECONDS = 0.5
_FIRST_CHECK_SECONDS = 2.0
# Longer than a check takes on a busy machine: a file system that hangs is noticed by this.
_STALE_SECONDS = 5.0

log = structlog.get_logger()


class Storage:
    """Checks the spool's size, its disk and the landing folder twice a second, in a thread."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool
        self._task: asyncio.Task[None] | None = None
        self._checked = asyncio.Event()

        # As of the last check.
        self._checked_at = 0.0
        self._landing_trouble: str | None = None
        self._spool_bytes = 0
        self._free_bytes = 0
        self._stored_bytes = 0

    async def open(self) -> None:
        """Begin to check; call it once the spool is open."""
        self._task = asyncio.create_task(self._keep_checking())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._checked.wait(), _FIRST_CHECK_SECONDS)

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def refusal(self) -> Refusal | None:
        """Return why a delivery cannot be kept now, None when it can."""
        if self.landing_trouble is not None:
            return Refusal.LANDING_NOT_WRITABLE
        return self._want_of_room()

    @property
    def landing_trouble(self) -> str | None:
        """Why the landing folder cannot be written, in words; None when it can."""
        if time.monotonic() - self._checked_at > _STALE_SECONDS:
            return "it does not answer"
        return self._landing_trouble

    @property
    def spool_trouble(self) -> str | None:
        """Why the spool cannot be written, in words; None when it can."""
        if self._spool.trouble is not None:
            return self._spool.trouble
        refusal = self._want_of_room()
        if refusal is Refusal.SPOOL_FULL:
            return (
                f"{self._spool_bytes} bytes wait for sealing and CUSTOMERIO_SPOOL_MAX_BYTES is "
                f"{self._settings.spool_max_bytes}"
            )
        if refusal is Refusal.DISK_LOW:
            return (
                f"{self._free_bytes} bytes are free on its disk and "
                f"CUSTOMERIO_SPOOL_MIN_FREE_BYTES is {self._settings.spool_min_free_bytes}"
            )
        return None

    def _want_of_room(self) -> Refusal | None:
        # Between two checks the bytes stored since the last one are counted in.
        grown = self._spool.stored_bytes - self._stored_bytes
        if self._spool_bytes + grown > self._settings.spool_max_bytes:
            return Refusal.SPOOL_FULL
        if self._free_bytes - grown < self._settings.spool_min_free_bytes:
            return Refusal.DISK_LOW
        return None

    async def _keep_checking(self) -> None:
        while True:
            stored_bytes = self._spool.stored_bytes
            self._note(await asyncio.to_thread(_try_landing, self._settings.landing))
            measured = await asyncio.to_thread(_measure, self._settings.spool)
            self._spool_bytes, self._free_bytes = measured
            self._stored_bytes = stored_bytes
            self._checked_at = time.monotonic()
            self._checked.set()
            await asyncio.sleep(_CHECK_EVERY_SECONDS)

    def _note(self, trouble: str | None) -> None:
        if trouble is not None and trouble != self._landing_trouble:
            log.error("landing_not_writable", reason=trouble)
        self._landing_trouble = trouble


def _try_landing(landing: Path) -> str | None:
    """Write and remove a file: permissions say nothing of root and of read-only disks."""
    probe = landing / f".probe-{os.getpid()}"
    try:
        make_folders(landing)
        try:
            probe.write_bytes(b"writable")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        return f"it cannot be written: {error.strerror or type(error).__name__}"
    return None


def _measure(spool: Path) -> tuple[int, int]:
    """Return the bytes that segments take, and those free on their disk; none where it is gone."""
    used = 0
    try:
        for folder in [*slot_folders(spool), *copied_folders(spool)]:
            for segment in list_segments(folder):
                # The sealer may remove it at any moment.
                with suppress(FileNotFoundError):
                    used += segment.path.stat().st_size
        disk = os.statvfs(spool)
    except OSError:
        return used, 0
    return used, disk.f_bavail * disk.f_frsize
