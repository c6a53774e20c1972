"""Comparing: the rows of the tables of arrays with what the landing files come to."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

import duckdb

from customerio_pipeline.loading.target import SOURCE_KEY, Target
from customerio_pipeline.verifying.conservation import Gap
from customerio_pipeline.verifying.matching import MatchedTable, plain, quoted

_MOST_PLACES = 5

_Elements = Mapping[tuple[object, ...], Sequence[object]]
"""Values of an event's elements, by their places in its arrays."""


class ArrayTable:
    """A table of arrays in the warehouse, and the one that was loaded anew."""

    def __init__(
        self,
        target: Target,
        connection: duckdb.DuckDBPyConnection,
        schema: str,
        table: MatchedTable,
    ) -> None:
        self._target = target
        self._connection = connection
        self._schema = schema
        self._table = table

    def differences(
        self, after: str | None, last: str | None, known: Collection[str], compared: Sequence[str]
    ) -> Iterator[Gap]:
        """Yield what differs in the elements of a range of events.

        Args:
            after: the event_id before the range, in the warehouse's order; None for the first.
            last: the last one of it; None for all that follow.
            known: event_ids in that range that have a row in `data`.
            compared: those of them whose elements landing still knows.
        """
        here = self._here(after, last)
        for event_id in here.keys() - set(known):
            yield Gap(f"{event_id} is in {self._name} and not in {self._schema}.data.")
        truth = self._anew(compared)
        for event_id in compared:
            places = self._differing(here.get(event_id, {}), truth.get(event_id, {}))
            if places:
                shown = ", ".join(places[:_MOST_PLACES])
                more = f" and {len(places) - _MOST_PLACES} more" * (len(places) > _MOST_PLACES)
                yield Gap(
                    f"{event_id} in {self._name} differs from what was landed in the"
                    f" elements {shown}{more}."
                )

    @property
    def _name(self) -> str:
        return f"{self._schema}.{self._table.name}"

    def _here(self, after: str | None, last: str | None) -> dict[str, _Elements]:
        if self._table.here is None:
            return {}
        names = [column.here for column in self._table.columns]
        select = self._select(self._table.here, names)
        bounds = [
            (f"{SOURCE_KEY} {relation} ${{}}", bound)
            for relation, bound in ((">", after), ("<=", last))
            if bound is not None
        ]
        where = " AND ".join(text.format(at) for at, (text, _) in enumerate(bounds, start=1))
        sql = f"{select} WHERE {where}" if where else select
        return self._by_event(self._target.query(sql, [bound for _, bound in bounds]).rows)

    def _anew(self, ids: Sequence[str]) -> dict[str, _Elements]:
        if self._table.anew is None:
            return {}
        names = [column.anew for column in self._table.columns]
        select = self._select(self._table.anew, names)
        sql = f"{select} WHERE {SOURCE_KEY} IN (SELECT unnest($1::VARCHAR[]))"
        return self._by_event(self._connection.execute(sql, [ids]).fetchall())

    def _select(self, table: str, names: Sequence[str | None]) -> str:
        columns = [SOURCE_KEY, *self._table.levels]
        columns += [quoted(name) if name else "NULL" for name in names]
        return f'SELECT {", ".join(columns)} FROM "{self._schema}".{quoted(table)}'

    def _by_event(self, rows: Sequence[Sequence[object]]) -> dict[str, _Elements]:
        found: dict[str, dict[tuple[object, ...], Sequence[object]]] = defaultdict(dict)
        levels = len(self._table.levels)
        for event_id, *values in rows:
            found[str(event_id)][tuple(values[:levels])] = values[levels:]
        return dict(found)

    def _differing(self, here: _Elements, truth: _Elements) -> list[str]:
        return [
            str(list(place))
            for place in sorted({**here, **truth}, key=str)
            if not self._is_same(here.get(place), truth.get(place))
        ]

    def _is_same(self, here: Sequence[object] | None, truth: Sequence[object] | None) -> bool:
        if here is None or truth is None:
            return False
        return all(
            value == other or plain(value, column.type) == plain(other, column.type)
            for column, value, other in zip(self._table.columns, here, truth, strict=True)
        )
