"""Landing files written anew with other content: the one exception to their never changing.

A file keeps its name, its writer and its offsets; a kill at any point leaves the old one or the new
one under that name, and at most a temporary file beside it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import make_alike, sync_folder
from customerio_pipeline.landing.joining import is_same, tables_of
from customerio_pipeline.landing.stillness import disturbed
from customerio_pipeline.landing.writing import LANDING_SCHEMA, parquet_writer

_WAIT_SECONDS = 30.0
_TEMPORARY = ".tmp"


def rewrite_file(landing: Path, file: LandingFile, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put `change` of each row group in the place of what a file holds, durably.

    What was written is read again and compared, all columns, before it takes the file's name.

    Args:
        landing: folder of the landing files.
        file: which one.
        change: gives the same for the same rows, and as many.

    Raises:
        LandingError: the file cannot be read or has other columns, what was written is not what it
            should be, or somebody reads the files all the while; it is as it was.
        OSError: it cannot be written.
    """
    path = file.path(landing)
    if not pq.read_schema(path).equals(LANDING_SCHEMA):
        raise LandingError(f"Landing file {file.relative_path} has other columns than ours.")
    temporary = path.with_name(f".{path.name}.erased{_TEMPORARY}")
    try:
        _write(landing, file, change, temporary)
        make_alike(temporary, path)
        _take_name(landing, file, temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(
    landing: Path, file: LandingFile, change: Callable[[pa.Table], pa.Table], path: Path
) -> None:
    with path.open("wb") as sink:
        with parquet_writer(sink, file.last - file.first + 1) as writer:
            for table in tables_of(landing, [file]):
                writer.write_table(change(table), row_group_size=table.num_rows)
        sink.flush()
        os.fsync(sink.fileno())
    if not is_same(path, map(change, tables_of(landing, [file]))):
        raise LandingError(
            f"What was made of {file.relative_path} does not hold what it should; it stays as it"
            " is."
        )


def _take_name(landing: Path, file: LandingFile, temporary: Path) -> None:
    path = file.path(landing)
    with disturbed(landing, file.schema, _WAIT_SECONDS) as is_still:
        if not is_still:
            raise LandingError(
                f"Landing file {file.relative_path} is being read all the while; try again later."
            )
        temporary.replace(path)
        sync_folder(path.parent)


def remove_halves(landing: Path, schema: str, hour: Path) -> None:
    """Remove what processes that were killed had begun to write into the folder of an hour.

    Raises:
        LandingError: somebody writes or reads all the while.
        OSError: one cannot be removed.
    """
    if not any(hour.glob(f".*{_TEMPORARY}")):
        return
    with disturbed(landing, schema, _WAIT_SECONDS) as is_still:
        if not is_still:
            raise LandingError(f"{hour.relative_to(landing)} is being read or written; try again.")
        for half in hour.glob(f".*{_TEMPORARY}"):
            half.unlink()
        sync_folder(hour)
