"""How much waits in the spool for sealing, and for how long."""

import time
from pathlib import Path
from typing import NamedTuple

from receiver.copied_slots import copied_folders
from receiver.segments import DamagedSegmentError, SegmentReader
from receiver.slots import SegmentFile, list_segments, slot_folders


class Depth(NamedTuple):
    """What waits for sealing."""

    segments: int
    """Segments that hold deliveries, those that are still appended to included."""

    bytes: int
    oldest_seconds: float
    """Age of the oldest delivery, 0 when there is none."""


def measure_depth(spool: Path) -> Depth:
    """Look through the spool; what is sealed meanwhile may count or not.

    Raises:
        OSError: it cannot be read.
    """
    segments = size = 0
    oldest_ns: list[int] = []
    for folder in [*slot_folders(spool), *copied_folders(spool)]:
        is_first = True
        for segment in list_segments(folder):
            try:
                content, first_ns = _look_into(segment, first_delivery=is_first)
            except (FileNotFoundError, DamagedSegmentError):
                # Sealed since it was listed, or a header that the worker and the sealer report.
                continue
            if content:
                segments += 1
                size += content
            if first_ns is not None:
                oldest_ns.append(first_ns)
                is_first = False
    age = (time.time_ns() - min(oldest_ns)) / 1e9 if oldest_ns else 0.0
    return Depth(segments, size, max(0.0, age))


def _look_into(segment: SegmentFile, *, first_delivery: bool) -> tuple[int, int | None]:
    """Return the bytes after the header, and when the first delivery came if that is asked."""
    with SegmentReader(segment.path) as reader:
        content = segment.path.stat().st_size - reader.header_length
        if first_delivery and content:
            for batch in reader.batches():
                return content, min(found[0].received_ns for found in batch.values())
        return content, None
