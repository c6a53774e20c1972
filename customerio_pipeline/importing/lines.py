"""JSON lines, plain or compressed: each line is a record, whatever is in it."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pyarrow as pa

from customerio_pipeline.importing.files import GZIP, ZSTD, InputFile, unreadable
from customerio_pipeline.importing.records import Record


class Lines:
    """The lines of a file but for the blank ones; gzip and zstd are unpacked."""

    def __init__(self, file: InputFile) -> None:
        """Begin with nothing read."""
        self._file = file

    @property
    def name(self) -> str:
        """As the user gave it."""
        return self._file.name

    def records(self) -> Iterator[Record]:
        """Yield a record for each line, byte for byte but for the end of the line.

        Raises:
            ImportFileError: the file cannot be read to its end.
        """
        try:
            with self._opened() as lines:
                for line in lines:
                    if not line.isspace():
                        yield Record(line.removesuffix(b"\n").removesuffix(b"\r"))
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise unreadable(self.name, error) from error

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        with self._file.path.open("rb") as file:
            if self._file.magic.startswith(GZIP):
                with gzip.open(file) as unpacked:
                    yield cast("BinaryIO", unpacked)
            elif self._file.magic == ZSTD:
                with io.BufferedReader(pa.CompressedInputStream(file, "zstd")) as buffered:
                    yield cast("BinaryIO", buffered)
            else:
                yield file
