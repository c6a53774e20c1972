"""From landed deliveries to the rows of one batch: decode, reject, flatten, keep the latest.

Most deliveries never become Python objects (`customerio_pipeline.loading.bulk`). The rest, and
small batches, are flattened one by one. Both ways give the same rows.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import duckdb
import pyarrow as pa

from customerio_pipeline.loading.bulk import BulkFlattener
from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, SYSTEM_COLUMNS, ColumnMap
from customerio_pipeline.loading.decoding import Rejected, read_events
from customerio_pipeline.loading.engine import Engine, Source, quoted
from customerio_pipeline.loading.flattening import Flattener, Row
from customerio_pipeline.loading.target import ColumnType

TABLE_VERSION = 0
"""``_sdc_table_version`` of every row: webhook tables are never reset (stitch-loading 1.6)."""

BULK_DELIVERIES = 5000
"""Deliveries from which planning a wide statement costs less than flattening one by one."""

_EPOCH = datetime.fromtimestamp(0, UTC)
_ARROW_TYPES = {
    ColumnType.TEXT: pa.string(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.JSON: pa.string(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}

REJECTED_COLUMNS = {
    "record": ColumnType.TEXT,
    "reason": ColumnType.TEXT,
    "table_name": ColumnType.TEXT,
    "_sdc_rejected_at": ColumnType.TIMESTAMP,
    "_sdc_sequence": ColumnType.BIGINT,
    "_sdc_received_at": ColumnType.TIMESTAMP,
    "writer": ColumnType.TEXT,
    "offset": ColumnType.BIGINT,
}
"""Stitch's four columns first (stitch-loading 7.1), then where the delivery is in landing."""

_log = logging.getLogger(__name__)


class Staged(NamedTuple):
    """What the deliveries of a batch came to."""

    columns: Mapping[str, ColumnType]
    """Type of each column of `rows`, in byte order of the names."""

    rows: pa.Table
    """One row per event_id."""

    rejected: pa.Table
    deliveries: int
    events: int
    absorbed: int
    """Events superseded within the batch."""

    received_from: datetime | None
    received_to: datetime | None


class _OneByOne(NamedTuple):
    rows: list[Row]
    rejected: list[tuple[object, ...]]
    events: int


class Staging:
    """Stages batches of one integration; what it learned of the events' keys stays warm."""

    def __init__(self, columns: ColumnMap) -> None:
        self.columns = columns
        self._flattener = Flattener(columns)
        self._engine = Engine()
        self._bulk = BulkFlattener(self._engine, self._flattener)

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()

    def stage(self, sources: Sequence[Source], batched_at: datetime) -> Staged:
        """Stage the deliveries of some landing files.

        Raises:
            duckdb.Error: a file cannot be read.
        """
        self._engine.read(sources)
        deliveries, received_from, received_to = self._engine.rows(
            "SELECT count(*), epoch_us(min(received_at)), epoch_us(max(received_at)) FROM raw"
        )[0]
        bulk = self._flatten_in_bulk() if deliveries >= BULK_DELIVERIES else []
        rest = "WHERE rowid NOT IN (SELECT n FROM bulk)" if bulk else ""
        slow = self._flatten_one_by_one(rest, batched_at)
        events = slow.events + (self._engine.rows("SELECT count(*) FROM bulk")[0][0] if bulk else 0)
        types = self._types(bulk, slow.rows)
        rows = _table(_columns(slow.rows, types, batched_at), types)
        if bulk:
            rows = self._combine(types, rows, batched_at)
        rejected = list(zip(*slow.rejected, strict=True)) or [()] * len(REJECTED_COLUMNS)
        return Staged(
            columns=types,
            rows=rows,
            rejected=_table(rejected, REJECTED_COLUMNS),
            deliveries=deliveries,
            events=events,
            absorbed=events - len(slow.rejected) - rows.num_rows,
            received_from=_time(received_from),
            received_to=_time(received_to),
        )

    def _flatten_in_bulk(self) -> list[str]:
        try:
            return self._bulk.flatten()
        except duckdb.Error as error:
            # Never expected; and no event may keep the others back.
            reason = str(error).splitlines()[0]
            _log.warning("The engine refused a batch, it is flattened one by one: %s", reason)
            return []

    def _flatten_one_by_one(self, where: str, batched_at: datetime) -> _OneByOne:
        latest: dict[object, Row] = {}
        rejected: list[tuple[object, ...]] = []
        events = 0
        for writer, offset, sequence, received_at, encoding, body in self._engine.deliveries(where):
            for event in read_events(body, encoding):
                events += 1
                if isinstance(event, Rejected):
                    rejected.append(
                        (*event, "data", batched_at, sequence, received_at, writer, offset)
                    )
                    continue
                row = self._flattener.row(event)
                row["_sdc_received_at"] = received_at
                row["_sdc_sequence"] = sequence
                row["_sdc_writer"] = writer
                row["_sdc_offset"] = offset
                latest[row["event_id"]] = row
        return _OneByOne(list(latest.values()), rejected, events)

    def _types(self, bulk: Sequence[str], slow: Sequence[Row]) -> dict[str, ColumnType]:
        known = {**self.columns.types, OVERFLOW_COLUMN: ColumnType.JSON, **SYSTEM_COLUMNS}
        used = {*SYSTEM_COLUMNS, *bulk, *(name for row in slow for name in row)}
        return {name: known[name] for name in sorted(used)}

    def _combine(
        self, types: Mapping[str, ColumnType], slow: pa.Table, batched_at: datetime
    ) -> pa.Table:
        """Put both ways together and keep the latest row of each event_id (design C5)."""
        order = "event_id, _sdc_sequence, _sdc_writer, _sdc_offset, n"
        both = (
            f"SELECT {order}, true AS is_bulk FROM bulk UNION ALL SELECT {order}, false FROM slow"
        )
        numbered = slow.append_column("n", pa.array(range(slow.num_rows), pa.int64()))
        superseded = self._engine.table(
            f"WITH both_ways AS ({both}) SELECT n, is_bulk FROM (SELECT n, is_bulk, row_number()"
            " OVER (PARTITION BY event_id"
            "  ORDER BY _sdc_sequence DESC, _sdc_writer DESC, _sdc_offset DESC) AS place"
            " FROM both_ways SEMI JOIN"
            "  (SELECT event_id FROM both_ways GROUP BY ALL HAVING count(*) > 1) USING (event_id))"
            " WHERE place > 1",
            slow=numbered,
        )
        selected = ", ".join(quoted(name) for name in types)
        microseconds = (batched_at - _EPOCH) // timedelta(microseconds=1)
        return self._engine.table(
            f"SELECT {selected} FROM (SELECT *, make_timestamptz({microseconds}) AS"
            f" _sdc_batched_at, {TABLE_VERSION}::BIGINT AS _sdc_table_version FROM bulk"
            "  WHERE n NOT IN (SELECT n FROM superseded WHERE is_bulk)"
            " UNION ALL BY NAME SELECT * FROM slow"
            "  WHERE n NOT IN (SELECT n FROM superseded WHERE NOT is_bulk))",
            slow=numbered,
            superseded=superseded,
        )


def _columns(
    rows: Sequence[Row], types: Mapping[str, ColumnType], batched_at: datetime
) -> list[list[object]]:
    constants = {"_sdc_batched_at": batched_at, "_sdc_table_version": TABLE_VERSION}
    return [
        [constants[name]] * len(rows) if name in constants else [row.get(name) for row in rows]
        for name in types
    ]


def _table(columns: Sequence[Sequence[object]], types: Mapping[str, ColumnType]) -> pa.Table:
    return pa.Table.from_arrays(
        [
            pa.array(values, _ARROW_TYPES[kind])
            for values, kind in zip(columns, types.values(), strict=True)
        ],
        names=list(types),
    )


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)
