"""Choosing the landing files of a load, and telling damaged ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.offsets import OffsetSet


def pending_files(
    files: Sequence[LandingFile], loaded: Mapping[str, OffsetSet]
) -> list[LandingFile]:
    """Return the files that hold an offset not in `loaded`."""
    return [
        file
        for file in files
        if file.writer not in loaded or not loaded[file.writer].covers(file.first, file.last)
    ]


def check_file(landing: Path, file: LandingFile, *, whole: bool = False) -> None:
    """Make sure that a file is Parquet and holds as many deliveries as its name promises.

    Reads the footer; with `whole`, every page too.

    Raises:
        LandingError: naming the file and the reason.
    """
    try:
        with pq.ParquetFile(file.path(landing)) as parquet:
            rows = parquet.metadata.num_rows
            if whole:
                parquet.read()
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise LandingError(
            f"Landing file {file.relative_path} cannot be read ({reason}); restore it from a"
            " backup, its events are not in the warehouse."
        ) from error
    promised = file.last - file.first + 1
    if rows != promised:
        raise LandingError(
            f"Landing file {file.relative_path} holds {rows} deliveries but its name promises"
            f" {promised}; restore it from a backup."
        )
