"""Writing landing files: all of a file or nothing, durable when the call returns."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import make_folders, sync_entries_once, sync_folder
from customerio_pipeline.landing.stillness import kept_still

LANDING_SCHEMA = pa.schema(
    [
        pa.field("writer", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("_sdc_sequence", pa.int64(), nullable=False),
        pa.field("received_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("url_id", pa.string(), nullable=False),
        pa.field("signature", pa.string(), nullable=False),
        *(pa.field(name.replace("-", "_"), pa.string()) for name in LANDED_HEADERS),
        pa.field("event_id", pa.string()),
        pa.field("body", pa.binary(), nullable=False),
    ]
)
"""Columns of a landing file; docs/landing-format.md explains each."""

ROW_GROUP_ROWS = 10_000
"""A row group should not have more,"""

ROW_GROUP_BODY_BYTES = 32 * 1024 * 1024
"""nor bodies of more bytes, unless it has only one."""

_ZSTD_LEVEL = 3


class _Envelope(msgspec.Struct):
    event_id: str | None = None


_envelope = msgspec.json.Decoder(_Envelope)


def read_event_id(body: bytes) -> str | None:
    """Return the ``event_id`` of a body that is one JSON object with a text id, else None."""
    try:
        event_id = _envelope.decode(body).event_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event_id


def row_groups(deliveries: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """Cut deliveries into row groups, so that neither writing nor reading needs much memory."""
    start = size = 0
    for at, delivery in enumerate(deliveries):
        is_full = size + len(delivery.body) > ROW_GROUP_BODY_BYTES or at - start == ROW_GROUP_ROWS
        if is_full and at > start:
            yield deliveries[start:at]
            start, size = at, 0
        size += len(delivery.body)
    yield deliveries[start:]


def write_landing_file(
    landing: Path, file: LandingFile, row_groups: Iterable[Sequence[Delivery]]
) -> Path:
    """Write one landing file and return its path.

    Each item of `row_groups` becomes one row group, so memory holds one at a time. Written under
    a temporary name, synced, renamed, its folders synced (design C3): a repeat after a crash
    replaces the file with one of the same rows.

    Raises:
        OSError: nothing is visible under the final name that was not there before.
    """
    path = file.path(landing)
    make_folders(path.parent)
    sync_entries_once(path.parent, landing.parent)
    with kept_still(landing, file.schema):
        _write(path, file, row_groups)
    return path


def parquet_writer(sink: BinaryIO, rows: int) -> pq.ParquetWriter:
    """Return the writer of a landing file of so many rows; each table written is a row group."""
    return pq.ParquetWriter(
        sink,
        LANDING_SCHEMA,
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        use_dictionary=["writer", "url_id", "signature", "content_type", "user_agent"],
        # A byte a row; so an event is found without reading every file (`trace`).
        bloom_filter_options={"event_id": {"ndv": min(rows, ROW_GROUP_ROWS), "fpp": 0.01}},
    )


def _write(path: Path, file: LandingFile, row_groups: Iterable[Sequence[Delivery]]) -> None:
    # Readers of Hive-style folders skip names that start with a dot.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as sink:
            with parquet_writer(sink, file.last - file.first + 1) as writer:
                for deliveries in row_groups:
                    writer.write_table(_table(deliveries), row_group_size=max(1, len(deliveries)))
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _table(deliveries: Sequence[Delivery]) -> pa.Table:
    columns: list[object] = [
        [delivery.writer for delivery in deliveries],
        [delivery.offset for delivery in deliveries],
        [delivery.sequence for delivery in deliveries],
        [delivery.received_ns // 1000 for delivery in deliveries],
        [delivery.url_id for delivery in deliveries],
        [delivery.signature for delivery in deliveries],
        *([delivery.headers[at] for delivery in deliveries] for at in range(len(LANDED_HEADERS))),
        [read_event_id(delivery.body) for delivery in deliveries],
        [delivery.body for delivery in deliveries],
    ]
    return pa.Table.from_arrays(
        [
            pa.array(values, field.type)
            for values, field in zip(columns, LANDING_SCHEMA, strict=True)
        ],
        schema=LANDING_SCHEMA,
    )
