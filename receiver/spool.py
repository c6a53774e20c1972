"""The spool of one worker: makes accepted requests durable, many with one sync (design C2).

One thread owns the journal. There is no timer and no batch size: the first request of an idle
spool wakes the thread, requests that arrive while a sync runs wait, and those that wait when it
ends are the next batch. The thread takes them itself: a busy event loop would begin the next sync
only at the end of its turn, and the disk would idle meanwhile.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import NamedTuple

import structlog

from customerio_pipeline.settings import Settings
from receiver.journal import Journal
from receiver.metrics import Tally
from receiver.numbering import Receipt
from receiver.refusals import NotStoredError, Refusal

_TICK_SECONDS = 0.1
_RETRY_SECONDS = 0.5
_OPENING_SECONDS = 2.0

log = structlog.get_logger()


class _Waiting(NamedTuple):
    receipt: Receipt
    since: float
    """Time of arrival, s on the monotonic clock."""

    stored: asyncio.Future[None]


class Spool:
    """Stores requests in a journal; after trouble with the disk it recovers by itself."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._settings = settings
        self._tally = tally
        self._journal = Journal(settings.spool)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._task: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None

        # The loop appends and the thread takes, both without the lock: each is one atomic step.
        # It keeps those that look at the queue before they take from it apart.
        self._queue: deque[_Waiting] = deque()
        self._taking = threading.Lock()
        self._in_sync: Sequence[_Waiting] = ()
        self._is_stalled = False
        self._is_closing = False
        self._seal_at = 0.0
        self._retry_at = 0.0

        self.waiting_bytes = 0
        """Bytes of the bodies that wait for a sync."""

        self.stored_bytes = 0
        """Bytes written so far."""

        self.trouble: str | None = "it is not open yet"
        """Why nothing can be stored now, in words; None when all is well."""

    async def open(self) -> None:
        """Take a slot; a spool that cannot be written is tried again until it can."""
        self._ticker = asyncio.create_task(self._tick())
        # A slow disk must not keep the worker from answering.
        await asyncio.wait([self._work()], timeout=_OPENING_SECONDS)

    async def close(self) -> None:
        """Store what waits, then give the slot up; further requests are refused."""
        self._is_closing = True
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        while self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()
        self._journal.close()

    def append(self, receipt: Receipt) -> asyncio.Future[None]:
        """Queue a request; the future ends when it is durable.

        Raises:
            NotStoredError: here or through the future; a request whose sync was merely too slow
                may turn up in the landing zone all the same.
        """
        refusal = self._refusal(len(receipt.body))
        if refusal is not None:
            raise NotStoredError(refusal)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(receipt, monotonic(), loop.create_future())
        self._queue.append(waiting)
        self.waiting_bytes += len(receipt.body)
        self._work()
        return waiting.stored

    def _refusal(self, size: int) -> Refusal | None:
        if self._is_closing:
            return Refusal.DRAINING
        if self.trouble is not None:
            return Refusal.SPOOL_NOT_WRITABLE
        if self._is_stalled:
            return Refusal.QUEUE_SLOW
        # A body above the bound is taken when it is alone.
        if self.waiting_bytes and self.waiting_bytes + size > self._settings.queue_max_bytes:
            return Refusal.QUEUE_FULL
        return None

    def _work(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return self._task

    async def _run(self) -> None:
        """Begin segments and store batches until there is nothing to do."""
        try:
            while self._queue or self._is_segment_due():
                if self._is_segment_due():
                    await self._in_thread(self._journal.begin_segment)
                    self.trouble = None
                await self._in_thread(partial(self._store, asyncio.get_running_loop()))
        except Exception as error:  # noqa: BLE001  whatever it was, nothing was acknowledged
            self._fail(error)
        finally:
            self._task = None

    def _store(self, loop: asyncio.AbstractEventLoop) -> None:
        """Store batch after batch, in the thread, until none waits or a segment is due."""
        journal = self._journal
        while not self._is_segment_due() and (batch := self._take()):
            # Stays set when the disk fails: `_fail` refuses it.
            self._in_sync = batch
            if journal.is_empty:
                self._seal_at = monotonic() + self._settings.seal_after_seconds
            before = journal.length
            journal.write(waiting.receipt for waiting in batch)
            began = time.perf_counter_ns()
            journal.sync()
            took_ns = time.perf_counter_ns() - began
            self._in_sync = ()
            loop.call_soon_threadsafe(self._stored, batch, journal.length - before, took_ns)

    def _take(self) -> list[_Waiting]:
        with self._taking:
            return [self._queue.popleft() for _ in range(len(self._queue))]

    def _stored(self, batch: list[_Waiting], size: int, took_ns: int) -> None:
        self._is_stalled = False
        self._tally.synced(len(batch), took_ns)
        self.stored_bytes += size
        self._end(batch, None)

    async def _in_thread(self, step: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, step)
        finally:
            self._is_stalled = False

    def _is_segment_due(self) -> bool:
        journal = self._journal
        if not journal.is_open:
            return True
        is_full = journal.length >= self._settings.segment_max_bytes
        return not journal.is_empty and (is_full or monotonic() >= self._seal_at)

    def _fail(self, error: Exception) -> None:
        """Refuse all that waits, and for a moment all that comes; then begin a new segment."""
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        trouble = f"it cannot be written: {reason}"
        if trouble != self.trouble:
            log.error("spool_not_writable", reason=reason)
        self.trouble = trouble
        self._retry_at = monotonic() + _RETRY_SECONDS
        self._journal.abandon_segment()
        failed, self._in_sync = self._in_sync, ()
        self._end(failed, Refusal.SPOOL_NOT_WRITABLE)
        self._end(self._take(), Refusal.SPOOL_NOT_WRITABLE)

    def _end(self, entries: Iterable[_Waiting], refusal: Refusal | None) -> None:
        for waiting in entries:
            self.waiting_bytes -= len(waiting.receipt.body)
            _answer(waiting, refusal)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._refuse_those_kept_too_long()
            is_idle = self._task is None and self._retry_at <= monotonic()
            if is_idle and self._is_segment_due():
                self._work()

    def _refuse_those_kept_too_long(self) -> None:
        """Answer before the sender gives up (customerio-webhooks 2)."""
        since = monotonic() - self._settings.queue_max_seconds
        for waiting in self._in_sync:
            if waiting.since <= since:
                self._is_stalled = True
                _answer(waiting, Refusal.QUEUE_SLOW)
        late: list[_Waiting] = []
        with self._taking:
            while self._queue and self._queue[0].since <= since:
                late.append(self._queue.popleft())
        if late:
            self._is_stalled = True
            self._end(late, Refusal.QUEUE_SLOW)


def _answer(waiting: _Waiting, refusal: Refusal | None) -> None:
    # Done already: it was kept too long, or its request was cancelled.
    if waiting.stored.done():
        return
    if refusal is None:
        waiting.stored.set_result(None)
    else:
        waiting.stored.set_exception(NotStoredError(refusal))
