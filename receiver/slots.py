"""Slots: the folders of the spool, each appended to by one worker at a time.

``<spool>/<slot>/`` holds ``lock``, ``identity`` (`receiver.copied_slots`) and the slot's segments.
A worker takes the first slot that no living process holds, so a replaced worker goes on where the
dead one ended. The newest segment is never removed: its header and frames say where the slot's
numbers stand.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple, Self

from customerio_pipeline.landing.folders import make_folders, sync_entries_once
from receiver.copied_slots import LOCK, is_copied, note_identity, set_aside
from receiver.numbering import Numbering
from receiver.segments import SegmentHeader, SegmentReader, SegmentWriter

_SEGMENT = re.compile(r"(?P<number>\d{12})(?:\.(?P<hour>\d{4}-\d\d-\d\dT\d\d))?\.segment")
_HOUR_FORMAT = "%Y-%m-%dT%H"


class SegmentFile(NamedTuple):
    """A segment as the folder shows it."""

    number: int
    hour: datetime | None
    """The hour of landing it goes to, once sealing has begun (design C3)."""

    path: Path

    def name_with(self, hour: datetime) -> Path:
        """Return the path that says which hour of landing the segment goes to."""
        return self.path.with_name(f"{self.number:012d}.{hour.strftime(_HOUR_FORMAT)}.segment")


class SlotEnd(NamedTuple):
    """Where the newest segment of a slot ends and where the numbers stand then."""

    number: int
    header_length: int
    length: int
    """Bytes of whole frames, all durable."""

    numbering: Numbering

    @property
    def is_empty(self) -> bool:
        """Whether the segment holds no batch."""
        return self.length == self.header_length

    def next_header(self) -> SegmentHeader:
        """Return the header of the segment that follows."""
        return SegmentHeader(self.number + 1, self.length or None, self.numbering)


NEW_SLOT = SlotEnd(number=0, header_length=0, length=0, numbering=Numbering())


class Slot:
    """A slot that this process holds until `release` or its death."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    @classmethod
    def try_lock(cls, folder: Path) -> Self | None:
        """Take the slot of `folder`, or return None when another process holds it."""
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have set the slot aside.
            if os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
                return cls(folder, lock)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    @classmethod
    def free_ones(cls, spool: Path) -> Iterator[Self]:
        """Yield slots that no process holds, making new ones without end.

        Raises:
            OSError: the spool's folder cannot be written.
        """
        for number in count():
            folder = spool / str(number)
            make_folders(folder)
            sync_entries_once(folder, spool.parent)
            slot = cls.try_lock(folder)
            if slot is not None and slot.set_aside_if_copied():
                make_folders(folder)
                slot = cls.try_lock(folder)
            if slot is not None:
                yield slot

    def end(self) -> SlotEnd:
        """Read where the slot ends, as a crash or its last holder left it.

        Raises:
            DamagedSegmentError: the newest segment has no readable header.
            OSError: it cannot be read.
        """
        segments = list_segments(self.folder)
        return read_end(segments[-1]) if segments else NEW_SLOT

    def set_aside_if_copied(self) -> bool:
        """Tell whether the slot is a copy; it is renamed and released then."""
        if not list_segments(self.folder) or not is_copied(self.folder):
            return False
        try:
            set_aside(self.folder)
        finally:
            self.release()
        return True

    def begin_segment(self, header: SegmentHeader) -> SegmentWriter:
        """Create the next segment, which closes the one before it for ever.

        Raises:
            OSError: neither may be appended to; trying again is harmless.
        """
        # Before there is a segment, and again when somebody has changed its permissions.
        note_identity(self.folder)
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        return SegmentWriter.create(self.folder, header)

    def release(self) -> None:
        """Let another process take the slot."""
        os.close(self._lock)


def set_aside_copy(folder: Path) -> bool:
    """Tell whether a slot may be a copy; it is set aside then, unless a process holds it."""
    try:
        may_be_copied = bool(list_segments(folder)) and is_copied(folder)
    except FileNotFoundError:
        return True
    slot = Slot.try_lock(folder) if may_be_copied else None
    if slot is not None and not slot.set_aside_if_copied():
        slot.release()
        return False
    return may_be_copied


def slot_folders(spool: Path) -> list[Path]:
    """Return the folders of all slots that workers take."""
    try:
        with os.scandir(spool) as entries:
            names = [entry.name for entry in entries if entry.name.isdecimal()]
    except FileNotFoundError:
        return []
    return [spool / name for name in sorted(names, key=int)]


def list_segments(folder: Path) -> list[SegmentFile]:
    """Return the segments of a slot, oldest first."""
    segments = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _SEGMENT.fullmatch(entry.name)
            if match is not None:
                hour = match["hour"]
                moment = hour and datetime.strptime(hour, _HOUR_FORMAT).replace(tzinfo=UTC)
                segments.append(SegmentFile(int(match["number"]), moment or None, Path(entry.path)))
    return sorted(segments, key=lambda segment: segment.number)


def read_end(segment: SegmentFile) -> SlotEnd:
    """Read where a segment ends and where the numbers stand then.

    Raises:
        DamagedSegmentError: it has no readable header.
        OSError: it cannot be read.
    """
    with SegmentReader(segment.path) as reader:
        # A process that was killed may have left frames that no sync has made durable; numbers go
        # on after them, so from now on they must not vanish.
        reader.sync()
        numbering = reader.header.numbering
        for batch in reader.batches():
            numbering = numbering.after(batch)
        return SlotEnd(segment.number, reader.header_length, reader.length, numbering)
