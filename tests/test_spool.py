"""The spool of a worker: one sync for many, bounds, and recovery from a failing disk."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from customerio_pipeline.settings import Settings
from receiver.metrics import Tally
from receiver.refusals import NotStoredError, Refusal
from receiver.sealing import seal_once
from receiver.segments import SegmentReader
from receiver.slots import list_segments
from receiver.spool import Spool
from tests.running_receiver import PATIENCE_SECONDS, check_offsets, landed_rows
from tests.spool_contents import SCHEMA, newest_segment, receipt


@asynccontextmanager
async def opened(home: Path, **settings: Any) -> AsyncIterator[Spool]:  # noqa: ANN401  passed on
    """Open a spool and close it at the end."""
    spool = Spool(Settings(home=home, **settings), Tally())
    await spool.open()
    try:
        yield spool
    finally:
        await spool.close()


async def refusal_of(spool: Spool, body: bytes = b"x") -> Refusal | None:
    """Store a body; return why it was refused, None when it was stored."""
    try:
        await spool.append(receipt(body))
    except NotStoredError as error:
        return error.refusal
    return None


async def until(probe: Callable[[], object]) -> None:
    """Wait until `probe` is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not probe():  # noqa: ASYNC110  no event tells
            await asyncio.sleep(0.01)


def landed_bodies(home: Path) -> list[bytes]:
    """Seal everything; return the bodies by offset, which have no gap."""
    seal_once(home / "spool", home / "landing")
    rows = landed_rows(home / "landing", SCHEMA)
    check_offsets(rows)
    return [row["body"] for row in rows]


def break_segment(spool: Spool, device: str) -> None:
    """Put a device in the place of the segment that the spool has open.

    Every write to ``/dev/full`` fails for want of space; ``/dev/null`` takes what is written and
    cannot be synced.
    """
    segment = spool._journal._segment
    assert segment is not None
    descriptor = os.open(device, os.O_WRONLY)
    os.dup2(descriptor, segment._descriptor)
    os.close(descriptor)


@contextmanager
def hanging_disk(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no sync of the segment that is open end; the event says that one has begun."""
    segment = spool._journal._segment
    assert segment is not None
    begun, released = threading.Event(), threading.Event()
    sync = segment.sync

    def hanging_sync() -> None:
        begun.set()
        released.wait()
        sync()

    with monkeypatch.context() as patch:
        patch.setattr(segment, "sync", hanging_sync)
        try:
            yield begun
        finally:
            released.set()


def test_those_that_wait_share_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of one moment become one frame; those that come during its sync the next."""

    async def scenario() -> None:
        async with opened(tmp_path, seal_after_seconds=60) as spool:
            with hanging_disk(spool, monkeypatch) as begun:
                first = [spool.append(receipt(b"first")) for _ in range(50)]
                await until(begun.is_set)
                second = [spool.append(receipt(b"second")) for _ in range(50)]
            await asyncio.gather(*first, *second)

    asyncio.run(scenario())
    with SegmentReader(newest_segment(tmp_path / "spool")) as reader:
        frames = [{delivery.body for delivery in batch[SCHEMA]} for batch in reader.batches()]
    assert frames == [{b"first"}, {b"second"}]
    assert len(landed_bodies(tmp_path)) == 100


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_failed_write_or_sync_is_refused_and_survived(tmp_path: Path, device: str) -> None:
    """The batch gets a refusal, a new segment is begun by itself, no offset is lost or doubled."""

    async def scenario() -> None:
        async with opened(tmp_path, seal_after_seconds=60) as spool:
            assert await refusal_of(spool, b"before") is None
            break_segment(spool, device)
            assert await refusal_of(spool, b"failed") is Refusal.SPOOL_NOT_WRITABLE
            assert spool.trouble is not None
            assert spool.trouble.startswith("it cannot be written: ")
            assert await refusal_of(spool, b"refused at once") is Refusal.SPOOL_NOT_WRITABLE
            await until(lambda: spool.trouble is None)
            assert await refusal_of(spool, b"after") is None

    asyncio.run(scenario())
    assert landed_bodies(tmp_path) == [b"before", b"after"]


def test_a_spool_that_cannot_be_opened_opens_when_it_can(tmp_path: Path) -> None:
    """A worker starts whatever the disk is like, says what is wrong, and recovers by itself."""
    (tmp_path / "spool").write_text("a file is in the way")

    async def scenario() -> None:
        async with opened(tmp_path) as spool:
            assert spool.trouble == "it cannot be written: Not a directory"
            assert await refusal_of(spool) is Refusal.SPOOL_NOT_WRITABLE
            (tmp_path / "spool").unlink()
            await until(lambda: spool.trouble is None)
            assert await refusal_of(spool, b"stored") is None

    asyncio.run(scenario())
    assert landed_bodies(tmp_path) == [b"stored"]


def test_nobody_waits_longer_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk hangs, those that wait are refused in time and those that come at once."""

    async def scenario() -> None:
        async with opened(tmp_path, queue_max_seconds=0.3) as spool:
            with hanging_disk(spool, monkeypatch) as begun:
                in_sync = asyncio.create_task(refusal_of(spool, b"in sync"))
                await until(begun.is_set)
                queued = asyncio.create_task(refusal_of(spool, b"queued"))
                assert await in_sync is Refusal.QUEUE_SLOW
                assert await queued is Refusal.QUEUE_SLOW
                assert await refusal_of(spool, b"comes later") is Refusal.QUEUE_SLOW
            await until(lambda: not spool._is_stalled)
            assert await refusal_of(spool, b"after") is None

    asyncio.run(scenario())
    # What was on its way to the disk is stored, though its sender was told to repeat it.
    assert landed_bodies(tmp_path) == [b"in sync", b"after"]


def test_the_queue_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would exceed the bound is refused at once; a body alone may exceed it."""

    async def scenario() -> None:
        async with opened(tmp_path, queue_max_bytes=1024) as spool:
            assert await refusal_of(spool, b"l" * 2000) is None
            with hanging_disk(spool, monkeypatch):
                waiting = asyncio.create_task(refusal_of(spool, b"w" * 1000))
                await asyncio.sleep(0)
                assert await refusal_of(spool, b"x" * 25) is Refusal.QUEUE_FULL
                fitting = asyncio.create_task(refusal_of(spool, b"f" * 24))
                await asyncio.sleep(0)
            assert await waiting is None
            assert await fitting is None

    asyncio.run(scenario())
    assert [len(body) for body in landed_bodies(tmp_path)] == [2000, 1000, 24]


def test_a_segment_is_closed_by_age(tmp_path: Path) -> None:
    """What was stored becomes sealable soon, though nothing else comes."""

    async def scenario() -> None:
        async with opened(tmp_path, seal_after_seconds=0.05) as spool:
            assert await refusal_of(spool, b"alone") is None
            await until(lambda: len(list_segments(tmp_path / "spool" / "0")) == 2)
            assert landed_bodies(tmp_path) == [b"alone"]

    asyncio.run(scenario())


def test_a_segment_is_closed_by_size(tmp_path: Path) -> None:
    """A full segment is closed at once."""

    async def scenario() -> None:
        async with opened(tmp_path, seal_after_seconds=60, segment_max_bytes=1024) as spool:
            for at in range(3):
                assert await refusal_of(spool, bytes([at]) * 600) is None
            segments = list_segments(tmp_path / "spool" / "0")
            assert [segment.number for segment in segments] == [1, 2]

    asyncio.run(scenario())
    assert [body[0] for body in landed_bodies(tmp_path)] == [0, 1, 2]


def test_closing_stores_what_waits(tmp_path: Path) -> None:
    """A drain acknowledges what was taken and refuses what comes after."""

    async def scenario() -> None:
        async with opened(tmp_path) as spool:
            waiting = [spool.append(receipt(b"taken")) for _ in range(10)]
        assert all(future.result() is None for future in waiting)
        assert await refusal_of(spool) is Refusal.DRAINING

    asyncio.run(scenario())
    assert landed_bodies(tmp_path) == [b"taken"] * 10


def test_a_cancelled_request_disturbs_nobody(tmp_path: Path) -> None:
    """A request that is given up while it waits does not keep the others from their answer."""

    async def scenario() -> None:
        async with opened(tmp_path) as spool:
            given_up, kept = spool.append(receipt(b"a")), spool.append(receipt(b"b"))
            given_up.cancel()
            await kept

    asyncio.run(scenario())
    assert landed_bodies(tmp_path) == [b"a", b"b"]
