"""Several landing files become one, proven to be the same rows before use; or one becomes part."""

import os
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.reading import check_file
from customerio_pipeline.landing.writing import (
    LANDING_SCHEMA,
    ROW_GROUP_BODY_BYTES,
    ROW_GROUP_ROWS,
    parquet_writer,
)


def size_if_sound(landing: Path, file: LandingFile) -> int | None:
    """Return the bytes of a file's columns before compression; None if it is to be left alone.

    That is one that is damaged, or of another release with other columns.
    """
    try:
        size = check_file(landing, file)
        is_ours = pq.read_schema(file.path(landing)).equals(LANDING_SCHEMA)
    except (LandingError, OSError, pa.ArrowException):
        return None
    return size if is_ours else None


def join_files(landing: Path, files: Sequence[LandingFile], path: Path) -> None:
    """Write the rows of `files`, which follow each other, to a new file, durably.

    Memory holds a few row groups. What was written is read again and compared, all columns.

    Raises:
        LandingError: a file cannot be read or does not hold the offsets of its name, or what was
            written is not the same as what was read.
        OSError: it cannot be written.
    """
    rows = files[-1].last - files[0].first + 1
    with path.open("xb") as sink:
        with parquet_writer(sink, rows) as writer:
            for group in _groups(tables_of(landing, files)):
                writer.write_table(group, row_group_size=group.num_rows)
        sink.flush()
        os.fsync(sink.fileno())
    if not is_same(path, _groups(tables_of(landing, files))):
        raise LandingError(
            f"The file made of {files[0].relative_path} and {len(files) - 1} others does not hold"
            " what they do; they stay as they are."
        )


def cut_file(landing: Path, file: LandingFile, part: LandingFile, path: Path) -> None:
    """Write those rows of a file that the name `part` promises to a new file, not durably.

    Raises:
        LandingError: the file cannot be read or does not hold the offsets of its name.
        OSError: it cannot be written.
    """
    with path.open("xb") as sink, parquet_writer(sink, part.last - part.first + 1) as writer:
        for table in tables_of(landing, [file]):
            first = table["offset"][0].as_py()
            start = max(part.first - first, 0)
            rows = table.slice(start, max(part.last + 1 - first - start, 0))
            if rows.num_rows:
                writer.write_table(rows, row_group_size=rows.num_rows)


def tables_of(landing: Path, files: Sequence[LandingFile]) -> Iterator[pa.Table]:
    """Yield the row groups of the files; check that they hold the offsets they should.

    Raises:
        LandingError: one cannot be read, or does not.
    """
    for file in files:
        following = file.first
        try:
            for table in _row_groups(file.path(landing)):
                offsets = pa.array(range(following, following + table.num_rows), pa.int64())
                is_its_own = pc.all(pc.equal(table["writer"], file.writer)).as_py()
                if not is_its_own or not table["offset"].equals(pa.chunked_array([offsets])):
                    raise LandingError(
                        f"Landing file {file.relative_path} holds other offsets than its name"
                        " promises; restore it from a backup."
                    )
                following += table.num_rows
                yield table
        except (OSError, pa.ArrowException) as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise LandingError(
                f"Landing file {file.relative_path} cannot be read ({reason}); restore it from a"
                " backup."
            ) from error


def _row_groups(path: Path) -> Iterator[pa.Table]:
    # One column after the other: memory counts more than time.
    with pq.ParquetFile(path) as parquet:
        for number in range(parquet.metadata.num_row_groups):
            yield parquet.read_row_group(number, use_threads=False)


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Put small tables together, up to the size of a row group."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        added = pc.sum(pc.binary_length(table["body"])).as_py() or 0
        if waiting and (
            rows + table.num_rows > ROW_GROUP_ROWS or size + added > ROW_GROUP_BODY_BYTES
        ):
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(table)
        rows += table.num_rows
        size += added
    if waiting:
        yield pa.concat_tables(waiting)


def is_same(path: Path, theirs: Iterator[pa.Table]) -> bool:
    """Tell whether the row groups of a file are these tables."""
    return all(
        one is not None and other is not None and one.equals(other)
        for one, other in zip_longest(_row_groups(path), theirs)
    )
