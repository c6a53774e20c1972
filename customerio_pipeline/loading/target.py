"""What loading needs of a warehouse, and what it hands over: the seam between the two.

A `Target` is implemented once per kind of warehouse (`customerio_pipeline.warehouse`). Loading
calls it; a target knows nothing of JSON, landing files or Dagster.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

import pyarrow as pa

from customerio_pipeline.landing.offsets import Interval, OffsetSet

DATA = "data"
"""The table of events."""

SOURCE_KEY = "_sdc_source_key_event_id"
"""Column of a subtable that holds the event's key (stitch-loading 1.3)."""

ELEMENT = "[]"
"""Stands for the elements of an array in the path of a subtable's column."""

TableColumns = Mapping[str, "ColumnType | None"]
"""Columns that a table has now; None for a type that loading never makes."""


class ColumnType(StrEnum):
    """Types a column of `data` can have; each warehouse names its own."""

    TEXT = "text"
    BIGINT = "bigint"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    JSON = "json"
    TIMESTAMP = "timestamp"


class Kind(StrEnum):
    """What a JSON value is; with its path it decides the column (stitch-loading 3)."""

    TEXT = "text"
    BIGINT = "bigint"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    JSON = "json"
    """An array, or an object nested too deep: kept as JSON text."""

    NUMBER = "number"
    """A number that neither bigint nor double holds: kept as its digits."""


class Column(NamedTuple):
    """Where the values of one kind at one path go, as `_sdc_columns` keeps it."""

    name: str
    type: ColumnType
    path: tuple[str, ...]
    """The JSON keys from the top of the event; `ELEMENT` stands for an array's elements."""

    kind: Kind
    base_name: str
    """Name of the path's own column; `name` is that, or that with a type suffix."""

    table: str = DATA

    @property
    def path_in_table(self) -> tuple[str, ...]:
        """The keys from where the table's rows are in the event."""
        elements = [at for at, key in enumerate(self.path) if key == ELEMENT]
        return self.path[elements[-1] + 1 :] if elements and self.table != DATA else self.path

    @property
    def is_split(self) -> bool:
        """Whether the values go to a sibling of the path's own column (stitch-loading 5.4)."""
        return self.name != self.base_name


class SchemaState(NamedTuple):
    """What a schema holds before a load."""

    loaded: Mapping[str, OffsetSet]
    """Offsets loaded so far, by writer."""

    columns: Sequence[Column]
    """The mapping so far."""

    table_columns: TableColumns
    """Columns of `data`."""

    subtables: Mapping[str, TableColumns] = MappingProxyType({})
    """Columns of each subtable (stitch-loading 4.2)."""

    held: Mapping[str, OffsetSet] = MappingProxyType({})
    """Offsets of `loaded` whose deliveries are held: settled, and in no table (landing's
    `signatures`)."""

    def settled(self, released: Mapping[str, OffsetSet]) -> Mapping[str, OffsetSet]:
        """Return the offsets that are not to be loaded: all of `loaded`, but for what was released.

        Args:
            released: offsets of deliveries that may be held no more, by writer.
        """
        reopened = self.reopened(released)
        if not reopened:
            return self.loaded
        return {
            writer: offsets.without(reopened.get(writer, OffsetSet()))
            for writer, offsets in self.loaded.items()
        }

    def reopened(self, released: Mapping[str, OffsetSet]) -> dict[str, OffsetSet]:
        """Return the offsets that are held and were released, by writer."""
        common = {
            writer: offsets.common(released[writer])
            for writer, offsets in self.held.items()
            if writer in released
        }
        return {writer: offsets for writer, offsets in common.items() if len(offsets)}

    def after(self, batch: "Batch") -> "SchemaState":
        """Return what the schema holds once `batch` is merged."""
        loaded = {writer: OffsetSet(offsets) for writer, offsets in self.loaded.items()}
        for writer, intervals in batch.loaded.items():
            offsets = loaded.setdefault(writer, OffsetSet())
            for first, last in intervals:
                offsets.add(first, last)
        held = {writer: OffsetSet(offsets) for writer, offsets in self.held.items()}
        for writer, offsets in batch.released.items():
            held[writer] = held[writer].without(offsets)
        for writer, offset in zip(
            batch.held["writer"].to_pylist(), batch.held["offset"].to_pylist(), strict=True
        ):
            held.setdefault(writer, OffsetSet()).add(offset, offset)
        return SchemaState(
            loaded,
            [*self.columns, *batch.mappings],
            {**batch.columns, **self.table_columns},
            {
                **self.subtables,
                **{
                    table.name: {**table.columns, **self.subtables.get(table.name, {})}
                    for table in batch.subtables
                },
            },
            {writer: offsets for writer, offsets in held.items() if len(offsets)},
        )

    def holds_as_much_as(self, other: "SchemaState") -> bool:
        """Tell whether both hold the same offsets, mapping and columns."""
        return (
            self.loaded == other.loaded
            and self.held == other.held
            and set(self.columns) == set(other.columns)
            and self.table_columns.keys() == other.table_columns.keys()
            and self.subtables == other.subtables
        )


class Subtable(NamedTuple):
    """Rows of one array's table in a batch (stitch-loading 4.2 to 4.5)."""

    name: str
    columns: Mapping[str, ColumnType]
    """Every column of `rows`, in byte order."""

    key: tuple[str, ...]
    """Columns of the primary key, in byte order."""

    rows: pa.Table
    """Elements of the arrays of the batch's events."""


class Replay(NamedTuple):
    """What is different with a batch of deliveries that were loaded before."""

    offsets: Mapping[str, OffsetSet]
    """These deliveries, by writer. Of their rejected records only those stay that the batch
    rejects, too."""

    compared: Sequence[str] | None
    """Columns of `data`: a row that came with the same delivery is replaced where one of them has
    another value. None: whenever it did."""


class Batch(NamedTuple):
    """One transaction's worth of work."""

    load_id: str
    batched_at: datetime
    run_id: str | None
    """Id of the Dagster run, if one loads."""

    mappings: Sequence[Column]
    """Entries that `_sdc_columns` does not have yet."""

    columns: Mapping[str, ColumnType]
    """Every column of `rows`, in byte order; the target adds those that `data` lacks."""

    rows: pa.Table
    """One row per event_id."""

    subtables: Sequence[Subtable]
    """Where arrays have tables of their own: elements that belong to `rows`. Those of earlier
    versions of these events are to be removed, from every subtable (stitch-loading 0.1)."""

    rejected: pa.Table
    """Rows for `_sdc_rejected`."""

    held: pa.Table
    """Rows for `_sdc_held`."""

    loaded: Mapping[str, Sequence[Interval]]
    """Offsets that this batch settles, by writer."""

    released: Mapping[str, OffsetSet]
    """Those of them that were held, and are no more."""

    files: int
    deliveries: int
    """Landing rows read."""

    events: int
    """Events in them: an array holds several."""

    absorbed: int
    """Events superseded by a later one of the same event_id in this batch."""

    received_from: datetime | None
    received_to: datetime | None
    """Receipt of the oldest and the newest delivery."""

    returned: Collection[tuple[str, int]] = ()
    """Deliveries, writer and offset, that hold events which were erased: these were left out."""

    replay: Replay | None = None
    """Then `deliveries` is 0 and `events` those more than were counted before: the loads add up."""


class MergeCounts(NamedTuple):
    """What the merge did; inserted + updated + stale is the number of staged rows."""

    inserted: int
    updated: int
    stale: int
    """Rows older than what the table holds."""

    row_count: int
    """Rows of `data` after the merge."""

    rejected: int
    """Rows that `_sdc_rejected` has more than before; negative after a replay that took some."""


class Removal(NamedTuple):
    """Rows that an erasure takes away, in one transaction."""

    event_ids: Sequence[str]
    """Of rows of `data` and of the elements of their arrays."""

    rejected: Sequence[tuple[str, int, str]]
    """Writer, offset and record of rows of `_sdc_rejected`."""

    held: Mapping[str, OffsetSet]
    """Offsets of `_sdc_held` whose deliveries hold nothing any more: they count as loaded."""

    removed_at: datetime


class RemovalCounts(NamedTuple):
    """Rows that were removed."""

    data: int
    subtables: Mapping[str, int]
    rejected: int
    held: int


class QueryResult(NamedTuple):
    """Rows of a read-only query."""

    columns: list[str]
    rows: list[tuple[object, ...]]


class Reader(Protocol):
    """A warehouse for those who only look."""

    @property
    def copied_at(self) -> datetime | None:
        """When the copy was made that answers instead; None: the warehouse itself does."""

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when there is no such schema yet.

        Raises:
            WarehouseError: it cannot be read, nor a copy of it.
        """

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement.

        Raises:
            WarehouseError: it failed, or neither warehouse nor copy can be opened.
        """

    def close(self) -> None:
        """Release every resource; the reader is not used again."""


class Target(Protocol):
    """A warehouse."""

    def exclusive(self, schema: str) -> AbstractContextManager[None]:
        """Hold the load lock of `schema`; it dies with its owner.

        Raises:
            WarehouseBusyError: another load of the schema did not end in time.
        """

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when there is no such schema yet.

        Under the load lock a damaged warehouse is replaced by an empty one.

        Raises:
            WarehouseDamagedError: it is damaged, and this is no load.
            WarehouseBusyError: another process holds the warehouse.
            WarehouseUnavailableError: it cannot be opened or reached.
        """

    def merge(self, schema: str, batch: Batch) -> MergeCounts:
        """Apply the batch in one transaction (design C4): all of it or nothing.

        Raises:
            WarehouseReplacedError: it is not the one whose state was read; read it again.
            WarehouseError: nothing was changed.
        """

    def remove(self, schema: str, removal: Removal) -> RemovalCounts:
        """Remove rows, in one transaction in which what the loads count is corrected.

        Under the load lock of `schema`, which is there.

        Raises:
            WarehouseError: nothing was changed.
        """

    def prepare_rebuild(self, schema: str, beside: str) -> None:
        """Make the schema `beside` anew: no rows, but the columns and the mapping of `schema`.

        Raises:
            WarehouseError: nothing was changed.
        """

    def finish_rebuild(self, schema: str, beside: str) -> None:
        """Put what `beside` holds in the place of what `schema` holds, and drop `beside`.

        In one transaction, under the load lock of `schema`.

        Raises:
            WarehouseError: nothing was changed.
        """

    def drop(self, schema: str) -> None:
        """Drop a schema and all that is in it, if it is there.

        Raises:
            WarehouseError: nothing was changed.
        """

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement.

        Raises:
            WarehouseError: it failed, or the warehouse cannot be opened.
        """

    def publish(self, *, force: bool = False) -> None:
        """Let those see what is loaded who read a copy; nothing where readers need none.

        Called after each load, it does so now and then; with `force`, when a drain ends, whenever
        something was loaded since. Never fails: what goes wrong is logged.
        """

    def close(self) -> None:
        """Release every resource; the target is not used again."""
