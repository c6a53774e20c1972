"""Sealing: closed segments become landing files (design C3).

A segment is closed once its successor exists. Its landing hour is fixed in its name first; then
one file per stream is written, whose name and rows follow from the segment alone; then the segment
is removed. So a crash at any point, and a repeat in another hour, gives the very same files.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import structlog

from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import sync_folder
from customerio_pipeline.landing.listing import is_superseded
from customerio_pipeline.landing.writing import row_groups, write_landing_file
from receiver.copied_deliveries import without_landed
from receiver.copied_slots import copied_folders, remove_sealed
from receiver.metrics import Tally, Word
from receiver.segments import DamagedSegmentError, SegmentReader
from receiver.slots import SegmentFile, Slot, list_segments, set_aside_copy, slot_folders

log = structlog.get_logger()


def seal_once(spool: Path, landing: Path, tally: Tally | None = None) -> list[LandingFile]:
    """Seal every closed segment of every slot, and what dead workers left; return the files.

    Does nothing while another process seals the same spool. `tally` counts what was done.

    Raises:
        OSError: the landing folder or the spool failed; what was not sealed stays in the spool.
    """
    files: list[LandingFile] = []
    errors: list[OSError] = []
    tally = tally or Tally()
    with _only_sealer(spool) as alone:
        for folder in slot_folders(spool) if alone else ():
            try:
                if set_aside_copy(folder):
                    continue
                close_abandoned(folder)
                # In order: the next one's header says how much of a segment counts.
                for segment, successor in pairwise(list_segments(folder)):
                    files += seal_segment(segment, successor, landing, tally)
            except OSError as error:
                errors.append(error)
        for folder in copied_folders(spool) if alone else ():
            try:
                files += seal_copy(folder, landing, tally)
            except OSError as error:
                errors.append(error)
    if errors:
        raise errors[0]
    return files


def close_abandoned(folder: Path) -> None:
    """Close the newest segment of a slot whose worker is gone, if it holds anything."""
    segments = list_segments(folder)
    if not segments or not _has_content(segments[-1]):
        return
    slot = Slot.try_lock(folder)
    if slot is None:
        return
    try:
        # Read under the lock: a worker may have come and gone.
        slot.begin_segment(slot.end().next_header()).close()
    finally:
        slot.release()


def seal_segment(
    segment: SegmentFile, successor: SegmentFile, landing: Path, tally: Tally
) -> list[LandingFile]:
    """Land a closed segment, then remove it."""
    segment = fix_hour(segment, datetime.now(UTC))
    closed = _closed_length(segment, successor)
    try:
        deliveries, length = _read(segment, closed)
    except DamagedSegmentError as error:
        _set_aside(segment, str(error), tally)
        return []
    files = land(deliveries, segment, landing)
    for file in files:
        tally.sealed(file.last - file.first + 1)
    if closed is not None and length < closed:
        _set_aside(segment, f"only {length} of {closed} bytes can be read", tally)
    else:
        segment.path.unlink()
    return files


def seal_copy(folder: Path, landing: Path, tally: Tally) -> list[LandingFile]:
    """Land what a copied slot holds and the landing folder does not, then remove the slot.

    A copy may be torn anywhere: what follows was landed from the original, or is in no copy. It
    goes to the hour of now: an earlier one may be compacted or expired; a repeat finds it landed.
    """
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    files: list[LandingFile] = []
    segments = list_segments(folder)
    # All read before any is removed. A copy may hold a segment under both of its names.
    successors = {segment.number: segment for segment in segments}
    closed = [_closed_length(each, successors.get(each.number + 1)) for each in segments]
    for segment, length in zip(segments, closed, strict=True):
        try:
            streams, _ = _read(segment, length)
        except DamagedSegmentError as error:
            _set_aside(segment, str(error), tally)
            continue
        for schema, deliveries in without_landed(streams, landing):
            files += land({schema: deliveries}, segment._replace(hour=now), landing)
        segment.path.unlink()
    for file in files:
        tally.sealed(file.last - file.first + 1)
    remove_sealed(folder)
    return files


def fix_hour(segment: SegmentFile, moment: datetime) -> SegmentFile:
    """Write the hour of landing into the segment's name, unless it says one already."""
    if segment.hour is None:
        hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        path = segment.path.rename(segment.name_with(hour))
        segment = segment._replace(hour=hour, path=path)
    # Whoever gave it the name may have failed or died here. Also makes durable that the segment
    # before was removed, and that this one's successor exists.
    sync_folder(segment.path.parent)
    return segment


def land(
    streams: Mapping[str, Sequence[Delivery]], segment: SegmentFile, landing: Path
) -> list[LandingFile]:
    """Write one landing file per stream of the segment."""
    if segment.hour is None:
        raise ValueError(f"{segment.path} has no hour of landing yet")
    files = []
    for schema, deliveries in streams.items():
        first, last = deliveries[0], deliveries[-1]
        file = LandingFile.sealed_at(
            segment.hour,
            schema=schema,
            writer=first.writer,
            first=first.offset,
            last=last.offset,
        )
        # After a crash, long ago, it may be part of a greater file by now (compaction).
        if not is_superseded(landing, file):
            write_landing_file(landing, file, row_groups(deliveries))
        log.info("sealed", schema=schema, writer=file.writer, first=file.first, last=file.last)
        files.append(file)
    return files


def _closed_length(segment: SegmentFile, successor: SegmentFile | None) -> int | None:
    """Bytes of the segment that count, None when all whole frames do."""
    if successor is None or successor.number != segment.number + 1:
        return None
    try:
        with SegmentReader(successor.path) as reader:
            return reader.header.predecessor_length
    except DamagedSegmentError:
        return None


def _read(segment: SegmentFile, closed: int | None) -> tuple[dict[str, list[Delivery]], int]:
    """Read the streams of a segment and the length at which reading ended."""
    streams: dict[str, list[Delivery]] = {}
    with SegmentReader(segment.path) as reader:
        for batch in reader.batches(closed):
            for schema, deliveries in batch.items():
                streams.setdefault(schema, []).extend(deliveries)
        return streams, reader.length


def _has_content(segment: SegmentFile) -> bool:
    try:
        with SegmentReader(segment.path) as reader:
            return segment.path.stat().st_size > reader.header_length
    except DamagedSegmentError:
        # The worker that could not take the slot reported it.
        return False


def _set_aside(segment: SegmentFile, reason: str, tally: Tally) -> None:
    """Keep a damaged segment for a person to look at; the gap shows in the landed offsets."""
    path = segment.path.rename(segment.path.with_suffix(".damaged"))
    tally.add(Word.DAMAGED_SEGMENTS)
    log.error("segment_damaged", path=str(path), reason=reason)


@contextmanager
def _only_sealer(spool: Path) -> Iterator[bool]:
    """Yield whether no other process seals this spool; the kernel frees a dead one's lock."""
    if not spool.exists():
        yield False
        return
    lock = os.open(spool / "sealer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(lock)
