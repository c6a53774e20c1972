"""Which offsets of an integration wait in the spool, and how far the receiver has acknowledged.

Only reads, while workers append and the sealer lands. A segment's header says where the numbers
stood when it was begun, so nothing but the newest segment of a slot is read whole.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from customerio_pipeline.landing.offsets import OffsetSet
from receiver.copied_slots import copied_folders, is_copied
from receiver.numbering import Numbering, Stream
from receiver.segments import DamagedSegmentError, SegmentHeader, SegmentReader
from receiver.slots import SegmentFile, list_segments, slot_folders


class Spooled(NamedTuple):
    """What a spool says of an integration."""

    next_offsets: Mapping[str, int]
    """The offset that the next delivery gets, by writer: those before it are acknowledged."""

    offsets: Mapping[str, OffsetSet]
    """What waits for sealing, by writer."""

    note: str | None
    """Why nothing, or not everything, could be read."""


def read_spooled(spool: Path, schema: str) -> Spooled:
    """Read what a spool says of an integration.

    Call it before landing is listed: what is sealed meanwhile, and not found here any more, has
    landed by then.
    """
    next_offsets: dict[str, int] = {}
    offsets: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
    note = None
    try:
        if not spool.is_dir():
            note = f"there is no spool at {spool}"
        for folder in slot_folders(spool):
            end = _read_slot(folder, schema, offsets)
            # A copy's landing folder may be older than it.
            if end is not None and not is_copied(folder):
                next_offsets[end.writer] = end.next_offset
        for folder in copied_folders(spool):
            _read_slot(folder, schema, offsets)
    except FileNotFoundError:
        note = "a slot of the spool was set aside meanwhile"
    except OSError as error:
        note = f"the spool at {spool} cannot be read: {error.strerror or type(error).__name__}"
    return Spooled(next_offsets, offsets, note)


def _read_slot(folder: Path, schema: str, offsets: Mapping[str, OffsetSet]) -> Stream | None:
    """Add what a slot's segments hold to `offsets`; return where its numbers stand."""
    found: Stream | None = None
    following: SegmentHeader | None = None
    for segment in reversed(_list_all(folder)):
        try:
            with _open(folder, segment) as reader:
                first, end = _first_and_end(reader, following, schema)
                following = reader.header
        except (FileNotFoundError, DamagedSegmentError):
            # Landed since it was listed, or a header that the worker and the sealer report.
            continue
        found = found or end
        if end is not None and first < end.next_offset:
            offsets[end.writer].add(first, end.next_offset - 1)
    return found


def _list_all(folder: Path) -> list[SegmentFile]:
    """List the segments of a slot, oldest first, while the sealer gives them their other names."""
    # One that is renamed while a folder is read may be seen under neither name. It is once.
    listed = {segment.number: segment for segment in list_segments(folder)}
    listed |= {segment.number: segment for segment in list_segments(folder)}
    return [listed[number] for number in sorted(listed)]


def _open(folder: Path, segment: SegmentFile) -> SegmentReader:
    """Open a segment under either of its names.

    Raises:
        FileNotFoundError: it has landed.
    """
    try:
        return SegmentReader(segment.path)
    except FileNotFoundError:
        for renamed in list_segments(folder):
            if renamed.number == segment.number:
                return SegmentReader(renamed.path)
        raise


def _first_and_end(
    reader: SegmentReader, following: SegmentHeader | None, schema: str
) -> tuple[int, Stream | None]:
    """Return the first offset that a segment may hold, and where the numbers stand after it."""
    start = end = reader.header.numbering
    if following is not None and following.number == reader.header.number + 1:
        end = following.numbering
    else:
        for batch in reader.batches():
            end = end.after(batch)
    return _next_offset(start, schema), end.streams.get(schema)


def _next_offset(numbering: Numbering, schema: str) -> int:
    stream = numbering.streams.get(schema)
    return stream.next_offset if stream else 0
