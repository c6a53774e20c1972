"""Segments: append-only files of the spool, made of frames that say themselves if they are whole.

A frame is ``magic, length, count, crc32`` (little-endian, 4 bytes each; the checksum covers the
other three and the payload) and `length` bytes of MessagePack. The first frame holds the
`SegmentHeader`, each further one a batch that was made durable by one sync: a map from schema to
deliveries, `count` in all. A reader stops at the first frame that is not whole: that is the torn
tail of a crash, which was never acknowledged (design C2).
"""

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.folders import sync_folder
from receiver.numbering import Batch, Numbering

_MAGIC = b"cio1"
_START = struct.Struct("<4sII")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _START.size + _CHECKSUM.size

_OWNER_ONLY = 0o600


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """What the first frame of a segment says."""

    number: int
    """1, 2, 3, … within a slot."""

    predecessor_length: int | None
    """Bytes of the segment before this one that count, None when there was none.

    What follows them could not be made durable and was refused: its numbers were given again.
    """

    numbering: Numbering
    """Where the numbers of the slot stood when the segment was begun."""


class DamagedSegmentError(Exception):
    """The header of a segment cannot be read."""


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(SegmentHeader).decode
_decode_batch = msgspec.msgpack.Decoder(dict[str, list[Delivery]]).decode


class SegmentWriter:
    """The segment that a slot appends to; after any error it must not be used again."""

    def __init__(self, descriptor: int, length: int) -> None:
        self._descriptor = descriptor
        self.length = length
        """Bytes written; durable after `sync`."""

    @classmethod
    def create(cls, folder: Path, header: SegmentHeader) -> Self:
        """Create a segment; it is visible under its name only when it is whole and durable.

        Raises:
            OSError: it may be visible or not, yet holds nothing but its header.
        """
        path = segment_path(folder, header.number)
        temporary = path.with_name(f".{path.name}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, _OWNER_ONLY)
        try:
            length = _write_frame(descriptor, _encode(header), 0)
            os.fsync(descriptor)
            temporary.replace(path)
            sync_folder(folder)
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                temporary.unlink()
            raise
        return cls(descriptor, length)

    def write(self, batch: Batch) -> None:
        """Hand a batch to the operating system; it counts once it is synced.

        Raises:
            OSError: it was written in part or not at all.
        """
        count = sum(map(len, batch.values()))
        self.length += _write_frame(self._descriptor, _encode(batch), count)

    def sync(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            OSError: what was written since the last sync may be lost.
        """
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class SegmentReader:
    """Reads a segment from its beginning to the first frame that is not whole."""

    def __init__(self, path: Path) -> None:
        """Open the segment and read its header.

        Raises:
            DamagedSegmentError: it has none.
            OSError: the file cannot be read.
        """
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self.length = 0
        """End of the last whole frame read."""

        try:
            self.header = _decode_header(self._next_frame(self._size) or b"")
        except msgspec.DecodeError as error:
            self._file.close()
            raise DamagedSegmentError(f"{path} has no readable header: {error}.") from error
        except BaseException:
            self._file.close()
            raise
        self.header_length = self.length

    def __enter__(self) -> Self:
        """Return the reader; leaving closes the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def sync(self) -> None:
        """Wait until what a process that died had written is on the disk.

        Raises:
            OSError: it may be lost.
        """
        os.fdatasync(self._file.fileno())

    def batches(self, until: int | None = None) -> Iterator[dict[str, list[Delivery]]]:
        """Yield the batches that end within the first `until` bytes of the file."""
        limit = self._size if until is None else min(until, self._size)
        while (payload := self._next_frame(limit)) is not None:
            yield _decode_batch(payload)

    def _next_frame(self, limit: int) -> bytes | None:
        head = self._file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES:
            return None
        magic, length, _count = _START.unpack_from(head)
        end = self.length + _HEAD_BYTES + length
        if magic != _MAGIC or end > limit:
            return None
        payload = self._file.read(length)
        if len(payload) < length or _checksum(head[: _START.size], payload) != head[_START.size :]:
            return None
        self.length = end
        return payload


def segment_path(folder: Path, number: int) -> Path:
    """Return where a slot keeps the segment of this number while it appends to it."""
    return folder / f"{number:012d}.segment"


def _write_frame(descriptor: int, payload: bytes, count: int) -> int:
    start = _START.pack(_MAGIC, len(payload), count)
    expected = _HEAD_BYTES + len(payload)
    written = os.writev(descriptor, [start, _checksum(start, payload), payload])
    if written != expected:
        # The disk is full or a limit was reached in the middle of the frame.
        raise OSError(f"only {written} of {expected} bytes were written")
    return written


def _checksum(start: bytes, payload: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(start)))
