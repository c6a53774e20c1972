"""What the tables of an integration hold of what was erased."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from customerio_pipeline.loading.decoding import JsonObject, Rejected
from customerio_pipeline.loading.erased import Erased
from customerio_pipeline.loading.persons import (
    CUSTOMER_ID_PATHS,
    EMAIL_PATHS,
    RECIPIENT_PATH,
)
from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Column, SchemaState, Target

REJECTED = "_sdc_rejected"

_VALUES = 1000
"""Values asked for in one statement."""

_PAGE_ROWS = 20_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)
_PATHS = {*CUSTOMER_ID_PATHS, *EMAIL_PATHS}
_OF_THE_EVENT = ("object_type",), ("timestamp",)


class InTables(NamedTuple):
    """What was found."""

    event_ids: set[str]
    """Of rows of `data`."""

    rejected: list[tuple[str, int, str]]
    """Writer, offset and record of rejected ones."""

    counts: Mapping[str, int]
    """Rows, by table."""


def look(target: Target, schema: str, erased: Erased, landed_ids: Iterable[str]) -> InTables:
    """Look for what was erased: by what the rows say themselves, and by event_ids in landing.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    state = target.state(schema)
    if not state.table_columns:
        return InTables(set(), [], {DATA: 0, REJECTED: 0})
    event_ids = set(_rows_of(target, schema, state, erased))
    event_ids |= set(_there(target, schema, sorted(landed_ids)))
    rejected = list(_rejected(target, schema, erased))
    counts = {
        table: _count(target, schema, table, sorted(event_ids))
        for table in (DATA, *sorted(state.subtables))
        if table == DATA or state.subtables[table]
    }
    return InTables(event_ids, rejected, {**counts, REJECTED: len(rejected)})


def _rows_of(target: Target, schema: str, state: SchemaState, erased: Erased) -> Iterator[str]:
    """Yield the event_ids of rows that name someone, and happened or came before the erasure."""
    columns = [
        column
        for column in state.columns
        if column.table == DATA
        and column.name in state.table_columns
        and column.path in {*_PATHS, *_OF_THE_EVENT}
    ]
    naming = {column.name: column for column in columns if column.path in _PATHS}
    conditions: defaultdict[str, list[str]] = defaultdict(list)
    masked: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in _values(target, schema, list(naming)):
        if _is_masked(erased, naming[name], value):
            masked[name].append(value)
        elif _is_of(erased, naming[name], value):
            conditions[name].append(value)
    yield from _rows_with(target, schema, masked)
    selected = ", ".join(
        ["event_id", "_sdc_received_at", *(_quoted(column.name) for column in columns)]
    )
    for name, values in conditions.items():
        for some in _parts(values):
            rows = target.query(
                f'SELECT {selected} FROM "{schema}".{DATA}'
                f" WHERE CAST({_quoted(name)} AS VARCHAR) IN ({_marks(some)})",
                some,
            ).rows
            for event_id, received_at, *found in rows:
                if erased.covers(_event(event_id, columns, found), _microseconds(received_at)):
                    yield str(event_id)


def _rows_with(target: Target, schema: str, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the event_ids of rows with certain values, by column; what is there came before now."""
    for name, those in values.items():
        for some in _parts(those):
            for (event_id,) in target.query(
                f'SELECT event_id FROM "{schema}".{DATA}'
                f" WHERE CAST({_quoted(name)} AS VARCHAR) IN ({_marks(some)})",
                some,
            ).rows:
                yield str(event_id)


def _values(target: Target, schema: str, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the different values of columns, as text: they are compared by their hashes."""
    if not columns:
        return
    sql = " UNION ALL ".join(
        f"SELECT DISTINCT {at}, CAST({_quoted(column)} AS VARCHAR)"
        f' FROM "{schema}".{DATA} WHERE {_quoted(column)} IS NOT NULL'
        for at, column in enumerate(columns)
    )
    for at, value in target.query(sql).rows:
        yield columns[int(str(at))], str(value)


def _is_masked(erased: Erased, column: Column, value: str) -> bool:
    return (column.path in CUSTOMER_ID_PATHS and value in erased.masked.customer_ids) or (
        column.path in EMAIL_PATHS and value in erased.masked.emails
    )


def _is_of(erased: Erased, column: Column, value: str) -> bool:
    is_id = column.path in CUSTOMER_ID_PATHS or column.path == RECIPIENT_PATH
    is_email = column.path in EMAIL_PATHS
    return (is_id and erased.names_customer(value)) or (is_email and erased.names_address(value))


def _event(event_id: object, columns: Sequence[Column], values: Sequence[object]) -> JsonObject:
    """Return as much of an event as tells whom it is about, and when it happened."""
    event: JsonObject = {"event_id": event_id}
    for column, value in zip(columns, values, strict=True):
        if value is None:
            continue
        inner = event
        for key in column.path[:-1]:
            inner = inner.setdefault(key, {})  # type: ignore[assignment]  # no path is a part of another
        inner[column.path[-1]] = value
    return event


def _there(target: Target, schema: str, event_ids: Sequence[str]) -> Iterator[str]:
    for some in _parts(event_ids):
        for (event_id,) in target.query(
            f'SELECT event_id FROM "{schema}".{DATA} WHERE event_id IN ({_marks(some)})', some
        ).rows:
            yield str(event_id)


def _count(target: Target, schema: str, table: str, event_ids: Sequence[str]) -> int:
    key = "event_id" if table == DATA else SOURCE_KEY
    return sum(
        int(
            str(
                target.query(
                    f'SELECT count(*) FROM "{schema}".{_quoted(table)}'
                    f" WHERE {key} IN ({_marks(some)})",
                    some,
                ).rows[0][0]
            )
        )
        for some in _parts(event_ids)
    )


def _rejected(target: Target, schema: str, erased: Erased) -> Iterator[tuple[str, int, str]]:
    offset = 0
    while True:
        rows = target.query(
            f'SELECT writer, "offset", record, reason, _sdc_received_at FROM "{schema}".{REJECTED}'
            f' ORDER BY writer, "offset", record LIMIT {_PAGE_ROWS} OFFSET {offset}'
        ).rows
        for writer, number, record, reason, received_at in rows:
            one = Rejected(str(record), str(reason))
            if erased.covers(one, _microseconds(received_at)):
                yield str(writer), int(str(number)), one.record
        if len(rows) < _PAGE_ROWS:
            return
        offset += _PAGE_ROWS


def _microseconds(moment: object) -> int:
    # A row from before somebody dropped the column counts as old.
    return (moment - _EPOCH) // _MICROSECOND if isinstance(moment, datetime) else 0


def _parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(values), _VALUES):
        yield values[first : first + _VALUES]


def _marks(values: Sequence[object]) -> str:
    return ", ".join(f"${at}" for at in range(1, len(values) + 1))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
