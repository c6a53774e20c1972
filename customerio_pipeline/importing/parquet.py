"""Parquet files of events: landing files, or one column that holds the JSON of each event."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import ImportFileError
from customerio_pipeline.importing.files import InputFile, unreadable
from customerio_pipeline.importing.records import Record
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.writing import LANDING_SCHEMA

_HEADERS = tuple(name.replace("-", "_") for name in LANDED_HEADERS)
_OF_A_DELIVERY = ("body", "_sdc_sequence", "received_at", "signature", *_HEADERS)
_USUAL_COLUMNS = ("body", "payload", "event", "json", "raw", "message")
"""Where the JSON is, unless the user says it."""

_ROWS_A_BATCH = 1000
_MICROSECOND_NS = 1000


class ParquetEvents:
    """The rows of a Parquet file."""

    def __init__(self, file: InputFile, column: str | None) -> None:
        """Begin with nothing read; `column` is the one that holds the JSON."""
        self._file = file
        self._column = column

    @property
    def name(self) -> str:
        """As the user gave it."""
        return self._file.name

    def records(self) -> Iterator[Record]:
        """Yield a record for each row; those of a landing file keep all but where they lay.

        Raises:
            ImportFileError: the file cannot be read to its end, or has no column of JSON.
        """
        try:
            with pq.ParquetFile(self._file.path) as parquet:
                schema = parquet.schema_arrow
                if self._column is None and _is_landing(schema):
                    yield from map(_delivery, _rows(parquet, list(_OF_A_DELIVERY)))
                else:
                    column = self._chosen(schema)
                    for row in _rows(parquet, [column]):
                        yield Record(_bytes(row[column]))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.name, error) from error

    def _chosen(self, schema: pa.Schema) -> str:
        names = [self._column] if self._column is not None else list(_USUAL_COLUMNS)
        found = [name for name in names if name in schema.names and _holds_json(schema, name)]
        if not found:
            what = "of that name" if self._column is not None else f"named {' or '.join(names)}"
            raise ImportFileError(
                f"{self.name} has no column of text or bytes {what}: say with --column which one"
                f" holds the JSON of the events (it has {', '.join(schema.names)})."
            )
        return found[0]


def _is_landing(schema: pa.Schema) -> bool:
    """Tell whether the columns that matter are those of a landing file."""
    return all(
        name in schema.names and schema.field(name).type.equals(LANDING_SCHEMA.field(name).type)
        for name in _OF_A_DELIVERY
    )


def _holds_json(schema: pa.Schema, name: str) -> bool:
    kind = schema.field(name).type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _rows(parquet: pq.ParquetFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in parquet.iter_batches(_ROWS_A_BATCH, columns=columns):
        table = pa.Table.from_batches([batch])
        if "received_at" in table.column_names:
            at = table.column_names.index("received_at")
            table = table.set_column(at, "received_at", table["received_at"].cast(pa.int64()))
        yield from table.to_pylist()


def _delivery(row: dict[str, Any]) -> Record:
    return Record(
        row["body"],
        row["_sdc_sequence"],
        row["received_at"] * _MICROSECOND_NS,
        row["signature"],
        tuple(row[name] for name in _HEADERS),
    )


def _bytes(value: str | bytes | None) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else value
