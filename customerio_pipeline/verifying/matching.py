"""Columns that two tables have in common: by what they hold, not by their names."""

import json
from typing import NamedTuple

from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, SYSTEM_COLUMNS
from customerio_pipeline.loading.target import (
    DATA,
    ELEMENT,
    SOURCE_KEY,
    ColumnType,
    SchemaState,
    TableColumns,
)

# When, not what: another load has another.
_OF_THE_LOAD = frozenset({"_sdc_batched_at"})
_OF_EVERY_TABLE = {**SYSTEM_COLUMNS, SOURCE_KEY: ColumnType.TEXT, OVERFLOW_COLUMN: ColumnType.JSON}


class MatchedColumn(NamedTuple):
    """A column that both tables have, or one of them."""

    here: str | None
    anew: str | None
    type: ColumnType


class MatchedTable(NamedTuple):
    """A table that both sides have, or one of them."""

    here: str | None
    anew: str | None
    levels: tuple[str, ...]
    """Columns that say where in the event's arrays a row is; none for `data`."""

    columns: list[MatchedColumn]

    @property
    def name(self) -> str:
        """Its name in the warehouse, or what it would be."""
        return self.here or self.anew or ""


def matched_data(here: SchemaState, anew: SchemaState) -> MatchedTable:
    """Match the columns of `data`."""
    return _matched((DATA, DATA), (here, anew), ())


def matched_arrays(here: SchemaState, anew: SchemaState) -> list[MatchedTable]:
    """Match the tables of arrays, and their columns."""
    names = [_array_tables(state) for state in (here, anew)]
    return [
        _matched(
            (names[0].get(path), names[1].get(path)),
            (here, anew),
            tuple(f"_sdc_level_{level}_id" for level in range(path.count(ELEMENT))),
        )
        for path in {**names[0], **names[1]}
    ]


def plain(value: object, kind: ColumnType) -> object:
    """Return a value as any warehouse has it."""
    if kind is ColumnType.JSON and isinstance(value, str):
        return json.loads(value)
    return value


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _matched(
    tables: tuple[str | None, str | None],
    states: tuple[SchemaState, SchemaState],
    levels: tuple[str, ...],
) -> MatchedTable:
    there = [_columns(state, table) for state, table in zip(states, tables, strict=True)]
    names = [
        {
            (column.path, column.kind): (column.name, column.type)
            for column in state.columns
            if column.table == table and column.name in present and column.name not in levels
        }
        for state, table, present in zip(states, tables, there, strict=True)
    ]
    found = {}
    for key in {**names[0], **names[1]}:
        own, other = names[0].get(key), names[1].get(key)
        kind = (own or other or ("", ColumnType.TEXT))[1]
        # Several kinds can share a column.
        pair = MatchedColumn(own and own[0], other and other[0], kind)
        found[pair.here, pair.anew] = pair
    for name, kind in _OF_EVERY_TABLE.items():
        if name in there[0] and name in there[1] and name not in _OF_THE_LOAD:
            found[name, name] = MatchedColumn(name, name, kind)
    return MatchedTable(*tables, levels, list(found.values()))


def _columns(state: SchemaState, table: str | None) -> TableColumns:
    if table is None:
        return {}
    return state.table_columns if table == DATA else state.subtables.get(table, {})


def _array_tables(state: SchemaState) -> dict[tuple[str, ...], str]:
    return {
        column.path: column.table
        for column in state.columns
        if column.table != DATA and column.path[-1] == ELEMENT and column.table in state.subtables
    }
