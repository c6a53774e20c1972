"""Choosing the landing files of a load, telling damaged ones, and reading small ones."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.signatures import ERASED, HELD_VERDICTS


def pending_files(
    files: Sequence[LandingFile], loaded: Mapping[str, OffsetSet]
) -> list[LandingFile]:
    """Return the files that hold an offset not in `loaded`."""
    return [
        file
        for file in files
        if file.writer not in loaded or not loaded[file.writer].covers(file.first, file.last)
    ]


def count_pending(files: Iterable[LandingFile], loaded: Mapping[str, OffsetSet]) -> int:
    """Return how many offsets of the files are not in `loaded`."""
    nothing = OffsetSet()
    return sum(
        file.last
        - file.first
        + 1
        - len(loaded.get(file.writer, nothing).within(file.first, file.last))
        for file in files
    )


class LandedDelivery(NamedTuple):
    """What loading reads of a delivery, but for where it lies."""

    sequence: int
    writer: str
    offset: int
    received_us: int
    """Microseconds since the epoch."""

    content_encoding: str | None
    body: bytes


class HeldDelivery(NamedTuple):
    """A delivery that is landed and not loaded (`customerio_pipeline.landing.signatures`)."""

    writer: str
    offset: int
    signature: str
    """The verdict."""

    url_id: str
    sequence: int
    received_us: int
    """Microseconds since the epoch."""


class Found(NamedTuple):
    """What loading reads of a landing file."""

    deliveries: list[LandedDelivery]
    held: list[HeldDelivery]
    erased: int
    """Deliveries of which nothing is left."""


_COLUMNS = ("_sdc_sequence", "writer", "offset", "received_at", "content_encoding", "body")
_HELD_COLUMNS = ("writer", "offset", "signature", "url_id", "_sdc_sequence", "received_at")


def read_deliveries(path: Path, loaded: OffsetSet, released: OffsetSet) -> Found:
    """Return the deliveries of a landing file whose offsets are not in `loaded`.

    Those with a verdict that holds them back are held, unless they are `released`.

    Raises:
        LandingError: naming the file and the reason.
    """
    try:
        # One at a time: a thread pool costs more than a small file.
        table = pq.read_table(
            path,
            columns=list(dict.fromkeys(_COLUMNS + _HELD_COLUMNS)),
            partitioning=None,
            use_threads=False,
        )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path.name, error) from error
    at = table.column_names.index("received_at")
    table = table.set_column(at, "received_at", table["received_at"].cast(pa.int64()))
    columns = {name: table[name].to_pylist() for name in table.column_names}
    deliveries: list[LandedDelivery] = []
    held: list[HeldDelivery] = []
    erased = 0
    for at, (offset, verdict) in enumerate(
        zip(columns["offset"], columns["signature"], strict=True)
    ):
        if loaded.covers(offset, offset):
            continue
        if verdict == ERASED:
            erased += 1
        elif verdict in HELD_VERDICTS and not released.covers(offset, offset):
            held.append(HeldDelivery(*(columns[name][at] for name in _HELD_COLUMNS)))
        else:
            deliveries.append(LandedDelivery(*(columns[name][at] for name in _COLUMNS)))
    return Found(deliveries, held, erased)


def check_file(landing: Path, file: LandingFile, *, whole: bool = False) -> int:
    """Make sure that a file is Parquet and holds as many deliveries as its name promises.

    Returns the bytes of its columns before compression. Reads the footer; with `whole`, every
    page too.

    Raises:
        LandingError: naming the file and the reason.
    """
    try:
        with pq.ParquetFile(file.path(landing)) as parquet:
            metadata = parquet.metadata
            rows = metadata.num_rows
            groups = map(metadata.row_group, range(metadata.num_row_groups))
            size: int = sum(group.total_byte_size for group in groups)
            if whole:
                parquet.read()
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file.relative_path, error) from error
    promised = file.last - file.first + 1
    if rows != promised:
        raise LandingError(
            f"Landing file {file.relative_path} holds {rows} deliveries but its name promises"
            f" {promised}; restore it from a backup."
        )
    return size


def _unreadable(name: str, error: Exception) -> LandingError:
    reason = str(error).splitlines()[0].rstrip(".")
    return LandingError(
        f"Landing file {name} cannot be read ({reason}); restore it from a backup, its events are"
        " not in the warehouse."
    )
