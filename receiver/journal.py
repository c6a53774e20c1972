"""The journal of one worker: its slot, the segment it appends to, and where its numbers stand."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from receiver.numbering import Numbering, Receipt
from receiver.segments import DamagedSegmentError, SegmentWriter
from receiver.slots import Slot, SlotEnd

log = structlog.get_logger()


class Journal:
    """Appends batches. Its methods block; the owner calls one at a time, from whatever thread."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._slot: Slot | None = None
        self._end: SlotEnd | None = None
        self._segment: SegmentWriter | None = None
        self._unsynced = Numbering()

    @property
    def is_open(self) -> bool:
        """Whether there is a segment to append to."""
        return self._segment is not None

    @property
    def is_empty(self) -> bool:
        """Whether the segment holds no batch."""
        return self._end is None or self._end.is_empty

    @property
    def length(self) -> int:
        """Durable bytes of the segment."""
        return 0 if self._end is None else self._end.length

    def begin_segment(self) -> None:
        """Close the segment and begin the next; the first time, take a slot and recover it.

        Raises:
            OSError: the journal is not open; it may be tried again.
        """
        self.abandon_segment()
        if self._slot is None or self._end is None:
            self._slot, self._end = _take_slot(self._spool)
        header = self._end.next_header()
        try:
            segment = self._slot.begin_segment(header)
        except FileNotFoundError:
            # Somebody removed the slot's folder: another slot has to do.
            self._give_slot_up()
            raise
        self._segment = segment
        self._end = SlotEnd(header.number, segment.length, segment.length, header.numbering)

    def write(self, receipts: Iterable[Receipt]) -> None:
        """Number the receipts and write them as one batch, which counts once it is synced.

        Raises:
            OSError: the segment must be abandoned.
        """
        segment, end = self._opened()
        batch, self._unsynced = end.numbering.number(receipts)
        segment.write(batch)

    def sync(self) -> None:
        """Wait until the batch written is durable.

        Raises:
            OSError: the segment must be abandoned.
        """
        segment, end = self._opened()
        segment.sync()
        self._end = end._replace(length=segment.length, numbering=self._unsynced)

    def abandon_segment(self) -> None:
        """Never append to the segment again; what is not durable in it does not count."""
        segment, self._segment = self._segment, None
        if segment is not None:
            # What counts is synced; a descriptor is gone even where closing it fails.
            with suppress(OSError):
                segment.close()

    def close(self) -> None:
        """Give the slot up; what it holds is sealed like a dead worker's."""
        self.abandon_segment()
        self._give_slot_up()

    def _give_slot_up(self) -> None:
        if self._slot is not None:
            self._slot.release()
        self._slot = self._end = None

    def _opened(self) -> tuple[SegmentWriter, SlotEnd]:
        if self._segment is None or self._end is None:
            raise OSError("no segment is open")
        return self._segment, self._end


def _take_slot(spool: Path) -> tuple[Slot, SlotEnd]:
    """Take the first slot that no process holds and whose end can be read."""
    for slot in Slot.free_ones(spool):
        try:
            return slot, slot.end()
        except DamagedSegmentError as error:
            # Its numbers are unknown, so it must not be continued; a person may look at it.
            log.error("slot_damaged", reason=str(error))  # noqa: TRY400  no traceback is needed
            slot.release()
        except BaseException:
            slot.release()
            raise
    raise AssertionError("free_ones never ends")
