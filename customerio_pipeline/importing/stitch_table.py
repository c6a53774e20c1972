"""Stitch's table ``data``, from a Parquet or CSV file, as the events that it was made of.

Each row becomes one JSON event with its `_sdc_sequence` and `_sdc_received_at`. Of an append-only
table the latest version of an event counts (stitch-loading 6.9).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from customerio_pipeline.errors import ImportFileError
from customerio_pipeline.importing import stitch_columns as stitch
from customerio_pipeline.importing.files import GZIP, PARQUET, ZSTD, InputFile, unreadable
from customerio_pipeline.importing.records import Record
from customerio_pipeline.loading.target import ColumnType

_ROWS_A_BATCH = 2000
_BLOCK_BYTES = 64 * 1024 * 1024
"""A row of CSV must fit into a block."""

_MICROSECOND_NS = 1000

# The greatest sequence counts; of equal ones the row loaded last.
_LATEST = """
SELECT n FROM (
 SELECT n, event_id, row_number() OVER (PARTITION BY event_id ORDER BY
  TRY_CAST(_sdc_sequence AS BIGINT) DESC NULLS LAST,
  TRY_CAST(_sdc_batched_at AS TIMESTAMPTZ) DESC NULLS LAST, n DESC
 ) AS place FROM versions)
WHERE place = 1 OR event_id IS NULL
"""

_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Plan(NamedTuple):
    """What one look at all rows found."""

    places: dict[str, stitch.Place]
    converters: dict[str, stitch.Convert]
    kept: bytearray
    """1 for each row that is the latest version of its event, or of no event."""


class StitchTable:
    """The rows of a file of Stitch's table."""

    def __init__(self, file: InputFile) -> None:
        """Begin with nothing read."""
        self._file = file

    @property
    def name(self) -> str:
        """As the user gave it."""
        return self._file.name

    def records(self) -> Iterator[Record]:
        """Yield an event for each event_id, and for each row without one.

        Raises:
            ImportFileError: the file cannot be read to its end, or is no table of Stitch's.
        """
        try:
            plan = self._plan
            n = 0
            for batch in self._batches():
                for row in batch.to_pylist():
                    if plan.kept[n]:
                        yield _record(row, plan)
                    n += 1
        except (OSError, pa.ArrowException, duckdb.Error) as error:
            raise unreadable(self.name, error) from error

    @cached_property
    def _plan(self) -> _Plan:
        columns = self._columns()
        # Of a CSV file all values are texts.
        types = {name: set(_INFERRED) for name in columns} if self._is_csv else {}
        rows = 0

        def versions() -> Iterator[pa.RecordBatch]:
            nonlocal rows
            for batch in self._batches():
                _narrow(types, batch)
                yield _version(batch, rows)
                rows += batch.num_rows

        with duckdb.connect() as connection:
            connection.register(
                "versions", pa.RecordBatchReader.from_batches(_VERSIONS, versions())
            )
            latest = connection.execute(_LATEST).fetchall()
        kept = bytearray(rows)
        for (n,) in latest:
            kept[n] = 1
        places = stitch.places(columns)
        return _Plan(places, self._converters(places, types), kept)

    @property
    def _is_csv(self) -> bool:
        return self._file.magic != PARQUET

    def _converters(
        self, places: dict[str, stitch.Place], types: dict[str, set[ColumnType]]
    ) -> dict[str, stitch.Convert]:
        if self._is_csv:
            return {
                name: stitch.text_converter(place, _narrowest(types[name]))
                for name, place in places.items()
            }
        found = {name: stitch.converter(place) for name, place in places.items()}
        return {name: convert for name, convert in found.items() if convert is not None}

    def _columns(self) -> list[str]:
        if self._is_csv:
            with self._csv() as reader:
                names = reader.schema.names
        else:
            with pq.ParquetFile(self._file.path) as parquet:
                names = parquet.schema_arrow.names
        columns = _renamed(names)
        for needed in (stitch.EVENT_ID, stitch.SEQUENCE):
            if needed not in columns:
                raise ImportFileError(
                    f"{self.name} has no column {needed}: it is no table `data` of Stitch's"
                    " Customer.io integration; nothing was imported."
                )
        return columns

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows, in the order of the file."""
        if self._is_csv:
            with self._csv() as reader:
                for batch in reader:
                    yield batch.rename_columns(_renamed(batch.schema.names))
            return
        with pq.ParquetFile(self._file.path) as parquet:
            for batch in parquet.iter_batches(_ROWS_A_BATCH):
                yield batch.rename_columns(_renamed(batch.schema.names))

    def _csv(self) -> csv.CSVStreamingReader:
        """Open the file with every value a text; what is empty and not in quotes is null."""
        magic = self._file.magic
        packing = "gzip" if magic.startswith(GZIP) else "zstd" if magic == ZSTD else None

        def opened(kinds: dict[str, pa.DataType]) -> csv.CSVStreamingReader:
            return csv.open_csv(
                pa.input_stream(str(self._file.path), compression=packing),
                csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                csv.ParseOptions(newlines_in_values=True),
                csv.ConvertOptions(
                    column_types=kinds,
                    null_values=["", r"\N"],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )

        with opened({}) as reader:
            names = reader.schema.names
        return opened(dict.fromkeys(names, pa.string()))


_INFERRED = (ColumnType.BOOLEAN, ColumnType.BIGINT, ColumnType.DOUBLE)

_VERSIONS = pa.schema(
    [
        ("n", pa.int64()),
        (stitch.EVENT_ID, pa.string()),
        (stitch.SEQUENCE, pa.string()),
        (stitch.BATCHED_AT, pa.string()),
    ]
)


def _version(batch: pa.RecordBatch, first: int) -> pa.RecordBatch:
    """Return what tells the versions of events apart; row numbers begin with `first`."""
    columns = [pa.array(range(first, first + batch.num_rows), pa.int64())]
    for name in _VERSIONS.names[1:]:
        is_there = name in batch.schema.names
        columns.append(
            batch[name].cast(pa.string()) if is_there else pa.nulls(batch.num_rows, pa.string())
        )
    return pa.RecordBatch.from_arrays(columns, schema=_VERSIONS)


def _renamed(names: list[str]) -> list[str]:
    """Return the names in lower case where a warehouse has them in upper case (2.13)."""
    return [name.lower() for name in names] if all(map(str.isupper, names)) else list(names)


def _narrow(types: dict[str, set[ColumnType]], batch: pa.RecordBatch) -> None:
    """Leave of `types` what the texts of a batch allow."""
    for name, kinds in types.items():
        if kinds:
            texts = set(batch[name].unique().drop_null().to_pylist())
            kinds.intersection_update(stitch.looks_like(texts))


def _narrowest(kinds: set[ColumnType]) -> ColumnType:
    return next((kind for kind in _INFERRED if kind in kinds), ColumnType.TEXT)


def _record(row: dict[str, Any], plan: _Plan) -> Record:
    for name, convert in plan.converters.items():
        row[name] = convert(row[name])
    return Record(
        _encode(stitch.nested(row, plan.places)),
        _sequence(row[stitch.SEQUENCE]),
        _received_ns(row.get(stitch.RECEIVED_AT)),
    )


def _sequence(value: object) -> int | None:
    try:
        return None if value is None else int(str(value))
    except ValueError:
        return None


def _received_ns(value: object) -> int | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.removesuffix(" UTC"))
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    since = moment - datetime.fromtimestamp(0, UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return microseconds * _MICROSECOND_NS
