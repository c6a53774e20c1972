"""Arrays in tables of their own, as Stitch lays them out in PostgreSQL (stitch-loading 4.2-4.12).

An integration is created with ``--arrays subtables`` for this; otherwise arrays are JSON text.
"""

from collections.abc import Mapping, Sequence

import msgspec

from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, ColumnMap
from customerio_pipeline.loading.exact_json import JsonText
from customerio_pipeline.loading.flattening import EMPTY_JSON, Flattener, Row
from customerio_pipeline.loading.masking import NO_MASKING, Masking
from customerio_pipeline.loading.names import SEPARATOR, full_name, unique_name
from customerio_pipeline.loading.target import (
    DATA,
    ELEMENT,
    SOURCE_KEY,
    Column,
    ColumnType,
    Kind,
    SchemaState,
    TableColumns,
)

MAX_SUBTABLES = 200
"""Arrays beyond this, from keys that never end, stay JSON text."""

MAX_LEVELS = 8
"""Arrays nested deeper in arrays stay JSON text."""

VALUE = "value"
"""Column of elements that are no objects (stitch-loading 4.3)."""

_SYSTEM_COLUMNS = {
    "_sdc_batched_at": ColumnType.TIMESTAMP,
    "_sdc_received_at": ColumnType.TIMESTAMP,
    "_sdc_sequence": ColumnType.BIGINT,
    "_sdc_table_version": ColumnType.BIGINT,
    SOURCE_KEY: ColumnType.TEXT,
}

_decode = msgspec.json.Decoder().decode


class ArrayTable:
    """The table of the arrays at one path."""

    def __init__(
        self, name: str, path: tuple[str, ...], columns: ColumnMap, masking: Masking
    ) -> None:
        self.name = name
        self.columns = columns
        self.flattener = Flattener(columns, path, masking)
        self.key = (*_level_ids(path), SOURCE_KEY)

    @property
    def types(self) -> dict[str, ColumnType]:
        """Type of every column that a row can have."""
        return {
            **self.columns.types,
            OVERFLOW_COLUMN: ColumnType.JSON,
            **self.columns.system,
        }


Element = tuple[ArrayTable, Row]
"""A row and the table that it belongs to."""


class Subtables:
    """The subtables of one schema; grows while events are flattened."""

    def __init__(self, state: SchemaState, max_columns: int, masking: Masking = NO_MASKING) -> None:
        self._state = state
        self._max_columns = max_columns
        self._masking = masking
        self._names: list[Column] = []
        self._new: list[Column] = []
        self._by_path: dict[tuple[str, ...], ArrayTable] = {}
        for column in state.columns:
            if column.table != DATA and column.path[-1] == ELEMENT:
                self._by_path[column.path] = self._open(column.table, column.path)
                self._names.append(column)

    @property
    def mappings(self) -> list[Column]:
        """Every entry, old and new."""
        tables = self._by_path.values()
        return [*self._names, *(column for table in tables for column in table.columns.mappings)]

    def follow(self, tables: Mapping[str, TableColumns]) -> None:
        """Take note of the columns that the subtables have now."""
        for table in self._by_path.values():
            table.columns.follow(tables.get(table.name, {}))

    def take_new(self) -> list[Column]:
        """Return the entries added since the last call."""
        new, self._new = self._new, []
        return [
            *new,
            *(column for table in self._by_path.values() for column in table.columns.take_new()),
        ]

    def explode(
        self, path: tuple[str, ...], array: object, rows: list[Element], ids: tuple[int, ...] = ()
    ) -> bool:
        """Add the elements of an array to `rows`; False when it has to stay JSON text.

        Args:
            path: of the array in the event.
            array: a list, or its JSON text.
            rows: without what all rows of an event have in common.
            ids: places in the arrays around this one.
        """
        elements = _decoded(array)
        if elements is None or path.count(ELEMENT) != len(ids):  # a key may be called like that
            return False
        if not msgspec.json.encode(elements).decode().strip(EMPTY_JSON):
            return True  # nothing is created for it (stitch-loading 4.9)
        table = self._table((*path, ELEMENT))
        if table is None:
            return False
        for at, element in enumerate(elements):
            inner = (*ids, at)

            def explode(
                path: tuple[str, ...], array: object, inner: tuple[int, ...] = inner
            ) -> bool:
                return self.explode(path, array, rows, inner)

            values = element if type(element) is dict else {VALUE: element}
            row = table.flattener.row(values, explode)
            row.update(zip(_level_ids(table.flattener.root.path), inner, strict=True))
            rows.append((table, row))
        return True

    def _table(self, path: tuple[str, ...]) -> ArrayTable | None:
        known = self._by_path.get(path)
        if known is not None:
            return known
        levels = path.count(ELEMENT)
        if levels > MAX_LEVELS or len(self._by_path) >= MAX_SUBTABLES:
            return None
        taken = {table.name.lower() for table in self._by_path.values()}
        # The first is `data`, the last stands for the rows themselves.
        keys = [key for key in path[:-1] if key != ELEMENT]
        name = unique_name(SEPARATOR.join([DATA, full_name(keys)]), taken)
        table = self._by_path[path] = self._open(name, path)
        id_column = _level_ids(path)[-1]
        entry = Column(id_column, ColumnType.BIGINT, path, Kind.BIGINT, id_column, table.name)
        self._names.append(entry)
        self._new.append(entry)
        return table

    def _open(self, name: str, path: tuple[str, ...]) -> ArrayTable:
        system = {**_SYSTEM_COLUMNS, **dict.fromkeys(_level_ids(path), ColumnType.BIGINT)}
        columns = ColumnMap(
            (
                column
                for column in self._state.columns
                if column.table == name and column.path != path
            ),
            self._state.subtables.get(name, {}),
            self._max_columns,
            table=name,
            path=path,
            system=system,
        )
        return ArrayTable(name, path, columns, self._masking)


def _level_ids(path: Sequence[str]) -> list[str]:
    return [f"_sdc_level_{level}_id" for level in range(path.count(ELEMENT))]


def _decoded(array: object) -> list[object] | None:
    if isinstance(array, list):
        return array
    if isinstance(array, JsonText):
        try:
            elements = _decode(array.encode())
        except (msgspec.DecodeError, RecursionError, ValueError):
            return None  # it holds what only its text can say
        return elements if isinstance(elements, list) else None
    return None
