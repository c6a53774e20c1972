"""Which column a value goes to: decided once per path and kind, the same ever after.

A column keeps its name and first type; a value of another JSON type goes to a sibling with a type
suffix, so nothing is coerced and no event is refused (stitch-loading 0.1, 5.4-5.6).
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Self

from customerio_pipeline.loading.declared import DECLARED_TYPES
from customerio_pipeline.loading.names import SEPARATOR, full_name, unique_name
from customerio_pipeline.loading.target import (
    DATA,
    Column,
    ColumnType,
    Kind,
    SchemaState,
    TableColumns,
)

SYSTEM_COLUMNS: dict[str, ColumnType] = {
    "_sdc_batched_at": ColumnType.TIMESTAMP,
    "_sdc_received_at": ColumnType.TIMESTAMP,
    "_sdc_sequence": ColumnType.BIGINT,
    "_sdc_table_version": ColumnType.BIGINT,
    "_sdc_writer": ColumnType.TEXT,
    "_sdc_offset": ColumnType.BIGINT,
    "event_id": ColumnType.TEXT,
}
"""Columns that every row has, whatever the event."""

OVERFLOW_COLUMN = "_sdc_overflow"
"""Takes, as one JSON object, the values for which the table has no room (stitch-loading 0.1)."""

_SUFFIXES = {
    ColumnType.BIGINT: "__bi",
    ColumnType.DOUBLE: "__do",
    ColumnType.BOOLEAN: "__bo",
    ColumnType.TEXT: "__st",
    ColumnType.JSON: "__js",
}


_log = logging.getLogger(__name__)

_EVENT_ID = Column("event_id", ColumnType.TEXT, ("event_id",), Kind.TEXT, "event_id")


class ColumnMap:
    """The mapping of one table; grows while events are flattened."""

    def __init__(  # noqa: PLR0913  what a table is
        self,
        columns: Iterable[Column],
        table_columns: TableColumns,
        max_columns: int,
        *,
        table: str = DATA,
        path: tuple[str, ...] = (),
        system: Mapping[str, ColumnType] = SYSTEM_COLUMNS,
    ) -> None:
        """Take over what is known of a table.

        Args:
            columns: its mapping so far.
            table_columns: what the table has now.
            max_columns: above this no column is added.
            table: its name.
            path: where its rows are in the event; ``()`` for `data`.
            system: columns that every row has.
        """
        self.system = system
        self._max_columns = max_columns
        self._table = table_columns
        self._table_name = table
        self._path = path
        self._mapping: dict[tuple[tuple[str, ...], Kind], Column] = {}
        self._base_names: dict[tuple[str, ...], str] = {}
        self._types: dict[str, ColumnType] = {}
        self._taken = {*system, OVERFLOW_COLUMN}
        self._new: list[Column] = []
        for column in columns:
            self._remember(column)

    @classmethod
    def of_data(cls, state: SchemaState, max_columns: int) -> Self:
        """Return the mapping of `data`."""
        columns = [_EVENT_ID, *(column for column in state.columns if column.table == DATA)]
        return cls(columns, state.table_columns, max_columns)

    def take_new(self) -> list[Column]:
        """Return the entries added since the last call."""
        new, self._new = self._new, []
        return new

    def follow(self, table_columns: TableColumns) -> None:
        """Take note of the columns that the table has now."""
        self._table = table_columns

    @property
    def mappings(self) -> Collection[Column]:
        """Every entry, old and new."""
        return self._mapping.values()

    @property
    def types(self) -> Mapping[str, ColumnType]:
        """Type of every mapped column, by name."""
        return self._types

    def column(
        self, path: tuple[str, ...], kind: Kind, *, is_hashed: bool = False
    ) -> Column | None:
        """Return the column for a value; None when the table has no room for another one.

        A hash is text, whatever type is declared for the value that it stands for.
        """
        known = self._mapping.get((path, kind))
        if known is not None:
            return known
        column = self._decide(path, kind, is_hashed=is_hashed)
        if column.name not in self._types and self._column_count() >= self._max_columns:
            return None
        self._remember(column)
        self._new.append(column)
        return column

    def _decide(self, path: tuple[str, ...], kind: Kind, *, is_hashed: bool) -> Column:
        base = self._base_names.get(path) or self._new_base_name(path)
        if kind is Kind.NUMBER:
            name = base + _SUFFIXES[ColumnType.TEXT]
            return Column(name, ColumnType.TEXT, path, kind, base, self._table_name)
        wanted = ColumnType(kind.value)
        declared = None if is_hashed else DECLARED_TYPES.get(path)
        base_type = self._types.get(base) or self._table.get(base) or declared or wanted
        name = base if base_type is wanted else base + _SUFFIXES[wanted]
        return Column(name, wanted, path, kind, base, self._table_name)

    def _new_base_name(self, path: tuple[str, ...]) -> str:
        """Name the path; a column that somebody added by hand is used where its type fits."""
        name = full_name(path[len(self._path) :])
        candidate = unique_name(name, self._taken)
        by_hand = self._table.get(candidate)
        if by_hand is not None and by_hand is DECLARED_TYPES.get(path, by_hand):
            return candidate
        return unique_name(name, self._taken | {column.lower() for column in self._table})

    def _remember(self, column: Column) -> None:
        self._mapping[column.path, column.kind] = column
        self._base_names[column.path] = column.base_name
        self._types[column.name] = column.type
        self._taken |= {column.name.lower(), column.base_name.lower()}

    def _column_count(self) -> int:
        return len({*self.system, *self._types})


def log_names(schema: str, mappings: Sequence[Column]) -> None:
    """Say once of each new column whose name a reader of the JSON would not expect."""
    for column in mappings:
        table = f"{schema}.{column.table}"
        path = SEPARATOR.join(column.path_in_table)
        if column.is_split:
            _log.warning(
                "%s: %s has values of another type now; they go to the new column %s.",
                table,
                column.base_name,
                column.name,
            )
        elif path and column.name != path:
            _log.info("%s: the key %s is the column %s.", table, path, column.name)
