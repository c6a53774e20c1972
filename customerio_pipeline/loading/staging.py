"""From landed deliveries to the rows of one batch: decode, reject, flatten, keep the latest.

Most deliveries never become Python objects (`customerio_pipeline.loading.bulk`). The rest, and
small batches, are flattened one by one. Both ways give the same rows.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from customerio_pipeline.landing.reading import HeldDelivery, LandedDelivery, read_deliveries
from customerio_pipeline.loading.bulk import ROW_ID, BulkFlattener
from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, SYSTEM_COLUMNS, ColumnMap
from customerio_pipeline.loading.decoding import JsonObject, Rejected, read_events
from customerio_pipeline.loading.engine import Engine, Source
from customerio_pipeline.loading.erased import Erased
from customerio_pipeline.loading.flattening import Flattener, Row
from customerio_pipeline.loading.masking import NO_MASKING, Masking
from customerio_pipeline.loading.subtables import ArrayTable, Element, Subtables
from customerio_pipeline.loading.target import (
    SOURCE_KEY,
    Column,
    ColumnType,
    SchemaState,
    Subtable,
)

TABLE_VERSION = 0
"""``_sdc_table_version`` of every row: webhook tables are never reset (stitch-loading 1.6)."""

BULK_DELIVERIES = 5000
"""Deliveries from which planning a wide statement costs less than flattening one by one."""

_ORDER = ("_sdc_sequence", "_sdc_writer", "_sdc_offset")
"""Of two rows with one event_id the one with the greater values counts (design C5)."""

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

HELD_COLUMNS = {
    "writer": ColumnType.TEXT,
    "offset": ColumnType.BIGINT,
    "signature": ColumnType.TEXT,
    "url_id": ColumnType.TEXT,
    "_sdc_sequence": ColumnType.BIGINT,
    "_sdc_received_at": ColumnType.TIMESTAMP,
}
"""Where the delivery is in landing, why it is held, and whence it came."""

_log = logging.getLogger(__name__)


class Layout(NamedTuple):
    """How the tables of an integration are laid out."""

    max_columns: int = 1000
    """Columns of a table above which values without one go to `_sdc_overflow`."""

    subtables: bool = False
    """Whether arrays have tables of their own; otherwise they are JSON text."""

    masking: Masking = NO_MASKING
    """What becomes of which columns' values."""


DEFAULT_LAYOUT = Layout()
NOTHING_ERASED = Erased()


class Staged(NamedTuple):
    """What the deliveries of a batch came to."""

    columns: Mapping[str, ColumnType]
    """Type of each column of `rows`, in byte order of the names."""

    rows: pa.Table
    """One row per event_id."""

    subtables: Sequence[Subtable]
    rejected: pa.Table
    held: pa.Table
    deliveries: int
    events: int
    absorbed: int
    """Events superseded within the batch."""

    received_from: datetime | None
    received_to: datetime | None
    returned: AbstractSet[tuple[str, int]]
    """Deliveries, writer and offset, that hold events which were erased."""


class _OneByOne(NamedTuple):
    rows: dict[object, Row]
    """By event_id."""

    elements: dict[object, list[Element]]
    """Rows of subtables, by event_id."""

    rejected: list[tuple[object, ...]]
    events: int
    returned: set[tuple[str, int]]


class Staging:
    """Stages batches of one integration; what it learned of the events' keys stays warm."""

    def __init__(self, state: SchemaState, layout: Layout = DEFAULT_LAYOUT) -> None:
        """Begin with what a schema holds."""
        self._columns = ColumnMap.of_data(state, layout.max_columns)
        self._subtables = (
            Subtables(state, layout.max_columns, layout.masking) if layout.subtables else None
        )
        self._masking = layout.masking
        self._flattener = Flattener(self._columns, masking=layout.masking)
        self._engine = Engine()
        self._bulk = BulkFlattener(
            self._engine, self._flattener, lambda event: self._flatten(event, [])
        )
        self._known = set(state.columns)

    def continues(self, state: SchemaState) -> bool:
        """Take over the tables as they are now; False when the mapping is another one."""
        self._columns.follow(state.table_columns)
        if self._subtables is not None:
            self._subtables.follow(state.subtables)
        return set(state.columns) == self._known

    def take_new(self) -> list[Column]:
        """Return the entries of the mapping added since the last call."""
        new = self._columns.take_new()
        if self._subtables is not None:
            new += self._subtables.take_new()
        self._known.update(new)
        return new

    def close(self) -> None:
        """Release the engine."""
        self._engine.close()

    def stage(
        self, sources: Sequence[Source], batched_at: datetime, erased: Erased = NOTHING_ERASED
    ) -> Staged:
        """Stage the deliveries of some landing files, but for events that were erased.

        Raises:
            duckdb.Error: a file cannot be read, or
            LandingError: the same, of few deliveries.
        """
        if sum(source.deliveries for source in sources) < BULK_DELIVERIES:
            found = [
                read_deliveries(source.path, source.loaded, source.released) for source in sources
            ]
            small = [delivery for one in found for delivery in one.deliveries]
            held = [delivery for one in found for delivery in one.held]
            times = [delivery.received_us for delivery in small]
            gone = sum(one.erased for one in found)
            landed = len(small) + gone, min(times, default=None), max(times, default=None)
            return self._stage([], 0, small, held, landed, batched_at, erased, set())
        self._engine.read(sources)
        landed = self._engine.rows(
            f"SELECT count(*) + {self._engine.erased}, epoch_us(min(received_at)),"
            " epoch_us(max(received_at)) FROM raw"
        )[0]
        returned = self._engine.leave_out(erased) if erased else set()
        parts = self._flatten_in_bulk()
        superseded = self._engine.rows("SELECT count(*) FROM superseded")[0][0] if parts else 0
        rest = self._rest(parts)
        held_now = self._engine.held
        return self._stage(parts, superseded, rest, held_now, landed, batched_at, erased, returned)

    def _stage(  # noqa: PLR0913, PLR0917  what was found, in its kinds
        self,
        parts: Sequence[pa.Table],
        superseded: int,
        rest: Sequence[LandedDelivery],
        held: Sequence[HeldDelivery],
        landed: tuple[int, int | None, int | None],
        batched_at: datetime,
        erased: Erased,
        returned: AbstractSet[tuple[str, int]],
    ) -> Staged:
        deliveries, received_from, received_to = landed
        slow = self._flatten_one_by_one(rest, batched_at, erased)
        events = superseded + sum(part.num_rows for part in parts) + slow.events
        parts = _keep_latest(parts, slow.rows)
        types = self._types(parts, slow.rows.values())
        rows = pa.concat_tables(
            [_conform(part, types, batched_at) for part in parts]
            + [_table(_columns(slow.rows.values(), types, batched_at), types)]
        )
        rejected = list(zip(*slow.rejected, strict=True)) or [()] * len(REJECTED_COLUMNS)
        return Staged(
            columns=types,
            rows=rows,
            subtables=_subtables(slow, batched_at),
            rejected=_table(rejected, REJECTED_COLUMNS),
            held=_table(list(zip(*held, strict=True)) or [()] * len(HELD_COLUMNS), HELD_COLUMNS),
            deliveries=deliveries,
            events=events,
            absorbed=events - len(slow.rejected) - rows.num_rows,
            received_from=_time(received_from),
            received_to=_time(received_to),
            returned=returned | slow.returned,
        )

    def _flatten_in_bulk(self) -> list[pa.Table]:
        try:
            return self._bulk.flatten()
        except duckdb.Error as error:
            # Never expected; and no event may keep the others back.
            reason = str(error).splitlines()[0]
            _log.warning("The engine refused a batch, it is flattened one by one: %s", reason)
            return []

    def _rest(self, parts: Sequence[pa.Table]) -> list[LandedDelivery]:
        """Return the deliveries that were not flattened in bulk."""
        if not parts:
            return self._engine.deliveries()
        return self._engine.deliveries(
            f"WHERE rowid NOT IN (SELECT {ROW_ID} FROM done)"
            " AND rowid NOT IN (SELECT n FROM superseded)",
            done=pa.concat_tables([part.select([ROW_ID]) for part in parts]),
        )

    def _flatten_one_by_one(
        self, deliveries: Sequence[LandedDelivery], batched_at: datetime, erased: Erased
    ) -> _OneByOne:
        latest: dict[object, Row] = {}
        elements: dict[object, list[Element]] = {}
        rejected: list[tuple[object, ...]] = []
        returned: set[tuple[str, int]] = set()
        events = 0
        # In the order in which later ones win (design C5).
        for sequence, writer, offset, received_us, encoding, body in sorted(deliveries):
            for event in read_events(body, encoding):
                if erased.covers(event, received_us):
                    returned.add((writer, offset))
                    continue
                events += 1
                if isinstance(event, Rejected):
                    record = self._masking.rejected(event.record)
                    why = (event.reason, "data", batched_at)
                    rejected.append((record, *why, sequence, received_us, writer, offset))
                    continue
                event_id = event["event_id"]
                elements[event_id] = []
                row = self._flatten(event, elements[event_id])
                row["_sdc_received_at"] = received_us
                row["_sdc_sequence"] = sequence
                row["_sdc_writer"] = writer
                row["_sdc_offset"] = offset
                latest[event_id] = row
        return _OneByOne(latest, elements, rejected, events, returned)

    def _flatten(self, event: JsonObject, elements: list[Element]) -> Row:
        """Return the row of an event; add those of its arrays to `elements`."""
        subtables = self._subtables
        if subtables is None:
            return self._flattener.row(event)
        return self._flattener.row(
            event, lambda path, array: subtables.explode(path, array, elements)
        )

    def _types(self, parts: Sequence[pa.Table], slow: Iterable[Row]) -> dict[str, ColumnType]:
        known = {**self._columns.types, OVERFLOW_COLUMN: ColumnType.JSON, **SYSTEM_COLUMNS}
        used = {*SYSTEM_COLUMNS, *(name for row in slow for name in row)}
        used.update(name for part in parts for name in part.column_names if name != ROW_ID)
        return {name: known[name] for name in sorted(used)}


def _subtables(slow: _OneByOne, batched_at: datetime) -> list[Subtable]:
    """Return the elements of the arrays of `slow.rows`, by table."""
    rows: defaultdict[ArrayTable, list[Row]] = defaultdict(list)
    for event_id, parent in slow.rows.items():
        for table, row in slow.elements[event_id]:
            row[SOURCE_KEY] = event_id
            row["_sdc_received_at"] = parent["_sdc_received_at"]
            row["_sdc_sequence"] = parent["_sdc_sequence"]
            rows[table].append(row)
    found = []
    for table, elements in rows.items():
        used = {*table.columns.system, *(name for row in elements for name in row)}
        types = {name: kind for name, kind in table.types.items() if name in used}
        types = dict(sorted(types.items()))
        columns = _table(_columns(elements, types, batched_at), types)
        found.append(Subtable(table.name, types, table.key, columns))
    return found


def _keep_latest(parts: Sequence[pa.Table], slow: dict[object, Row]) -> list[pa.Table]:
    """Leave out of `parts`, and remove from `slow`, what the other supersedes (design C5)."""
    ids = pa.array(list(slow), pa.string())
    kept = []
    for part in parts:
        in_both = pc.is_in(part["event_id"], ids)
        superseded = []
        for row in part.select(["event_id", *_ORDER]).filter(in_both).to_pylist():
            event_id = row["event_id"]
            other = slow.get(event_id)
            if other is None:
                continue
            if [row[name] for name in _ORDER] > [other[name] for name in _ORDER]:
                del slow[event_id]
            else:
                superseded.append(event_id)
        if superseded:
            is_superseded = pc.is_in(part["event_id"], pa.array(superseded, pa.string()))
            part = part.filter(pc.invert(is_superseded))  # noqa: PLW2901
        kept.append(part)
    return kept


def _conform(part: pa.Table, types: Mapping[str, ColumnType], batched_at: datetime) -> pa.Table:
    """Return the columns of `types`, those that `part` lacks as nulls."""
    names = set(part.column_names)
    constants = _constants(batched_at)
    columns = []
    for name, kind in types.items():
        arrow_type = _ARROW_TYPES[kind]
        if name in constants:
            column = pa.repeat(pa.scalar(constants[name], arrow_type), part.num_rows)
        elif name in names:
            column = part[name].cast(arrow_type)
        else:
            column = pa.nulls(part.num_rows, arrow_type)
        columns.append(column)
    return pa.Table.from_arrays(columns, names=list(types))


def _constants(batched_at: datetime) -> dict[str, object]:
    return {"_sdc_batched_at": batched_at, "_sdc_table_version": TABLE_VERSION}


def _columns(
    rows: Collection[Row], types: Mapping[str, ColumnType], batched_at: datetime
) -> list[list[object]]:
    constants = _constants(batched_at)
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
