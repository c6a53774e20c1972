"""Comparing: every row of `data` with what the landing files come to, loaded anew beside it.

Landing is the truth and the table a function of it (design C5), so the files are loaded into a
warehouse of their own, and the two tables compared value by value. Columns are matched by what they
hold, for a name may depend on what came first.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb

from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.joining import cut_file
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases, release
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, SYSTEM_COLUMNS
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.loading.target import DATA, ColumnType, SchemaState, Target
from customerio_pipeline.verifying.conservation import Gap
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget

_PAGE_ROWS = 20_000
_MOST_GAPS = 20
_OF_EACH_ROW = "event_id VARCHAR, _sdc_writer VARCHAR, _sdc_offset BIGINT"
_LOADED_AT = "_sdc_batched_at"
# When, not what: another load has another.
_OF_THE_LOAD = frozenset({_LOADED_AT})


class Comparison(NamedTuple):
    """What a comparison found."""

    rows: int
    """Rows compared."""

    gaps: list[Gap]
    """At most 20; the last one says how many more there are."""


def compare(
    target: Target, landing: Path, schema: str, layout: Layout, *, scratch: Path
) -> Comparison:
    """Compare `data` with the landing files whose offsets are loaded; loads wait meanwhile.

    Memory holds 20,000 rows; `scratch`, a folder, a second table meanwhile.

    Raises:
        LandingError: a landing file cannot be read.
        WarehouseError: the warehouse cannot be read, or a load did not end in time.
    """
    with (
        tempfile.TemporaryDirectory(prefix="verify-", dir=scratch) as name,
        target.exclusive(schema),
        kept_still(landing, schema),
    ):
        folder = Path(name)
        state = target.state(schema)
        _link_loaded(landing, folder / "landing", schema, state)
        released = Releases(landing, schema).offsets()
        reopened = state.reopened(released)
        release(
            folder / "landing",
            schema,
            {
                writer: offsets.without(reopened.get(writer, OffsetSet()))
                for writer, offsets in released.items()
            },
        )
        file = folder / "anew.duckdb"
        anew = DuckDBTarget.from_url(f"duckdb:///{file}", wait_seconds=30, publish_seconds=0)
        loader = Loader(schema, folder / "landing", anew, layout=layout)
        try:
            for _ in drain(loader):
                pass
            columns = _matched(state, anew.state(schema))
        finally:
            loader.close()
            anew.close()
        expired = Expirations(landing, schema).gone(LandingListing(landing, schema).files())
        with closing(duckdb.connect(file)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            # When all that was loaded has expired, nothing was loaded anew.
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(f'CREATE TABLE IF NOT EXISTS "{schema}".data ({_OF_EACH_ROW})')
            found = _Differences(schema)
            rows = 0
            for line in _differences(
                target, connection, schema, columns, expired, _since(state, layout.masking)
            ):
                rows += line if isinstance(line, int) else 0
                if isinstance(line, (Gap, _BeforeRules)):
                    found.add(line)
        return Comparison(rows, found.gaps())


class _BeforeRules(NamedTuple):
    """A row that differs and was loaded before the rules on fields last changed."""

    columns: list[str]
    """In which it differs."""


class _Differences:
    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._first: list[Gap] = []
        self._more = 0
        self._before_rules = 0
        self._columns: set[str] = set()

    def add(self, found: Gap | _BeforeRules) -> None:
        if isinstance(found, _BeforeRules):
            self._before_rules += 1
            self._columns.update(found.columns)
        elif len(self._first) < _MOST_GAPS:
            self._first.append(found)
        else:
            self._more += 1

    def gaps(self) -> list[Gap]:
        more = [Gap(f"{self._more:,} more differences.")] if self._more else []
        return [*self._of_rules(), *self._first, *more]

    def _of_rules(self) -> list[Gap]:
        if not self._before_rules:
            return []
        rows = "row was" if self._before_rules == 1 else "rows were"
        return [
            Gap(
                f"{self._before_rules:,} {rows} loaded before the rules on fields last changed,"
                f" and differ{'s' if self._before_rules == 1 else ''} in"
                f" {', '.join(sorted(self._columns))}:"
                f" `customerio-pipeline rebuild {self._schema}` applies the rules."
            )
        ]


class _Matched(NamedTuple):
    """A column that both tables have, or one of them."""

    here: str | None
    anew: str | None
    type: ColumnType


def _link_loaded(landing: Path, beside: Path, schema: str, state: SchemaState) -> None:
    """Make a landing folder of what is loaded; only parts of files are copied."""
    (beside / f"integration={schema}").mkdir(parents=True)
    for file in LandingListing(landing, schema).files():
        loaded = state.loaded.get(file.writer, OffsetSet())
        for first, last in loaded.within(file.first, file.last):
            part = file._replace(first=first, last=last)
            path = part.path(beside)
            path.parent.mkdir(parents=True, exist_ok=True)
            if part == file:
                path.symlink_to(file.path(landing).absolute())
            else:
                cut_file(landing, file, part, path)


def _matched(here: SchemaState, anew: SchemaState) -> list[_Matched]:
    names = [
        {
            (column.path, column.kind): (column.name, column.type)
            for column in state.columns
            if column.table == DATA and column.name in state.table_columns
        }
        for state in (here, anew)
    ]
    matched = {}
    for key in {**names[0], **names[1]}:
        own, other = names[0].get(key), names[1].get(key)
        kind = (own or other or ("", ColumnType.TEXT))[1]
        # Several kinds can share a column.
        pair = _Matched(own and own[0], other and other[0], kind)
        matched[pair.here, pair.anew] = pair
    for name, kind in {**SYSTEM_COLUMNS, OVERFLOW_COLUMN: ColumnType.JSON}.items():
        if name in here.table_columns and name in anew.table_columns and name not in _OF_THE_LOAD:
            matched[name, name] = _Matched(name, name, kind)
    return list(matched.values())


def _since(state: SchemaState, masking: Masking) -> datetime | None:
    """Return when the rules on fields last changed, where a row tells when it was loaded."""
    return masking.changed_at if _LOADED_AT in state.table_columns else None


def _differences(  # noqa: PLR0913, PLR0917  what is compared
    target: Target,
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    columns: Sequence[_Matched],
    expired: Mapping[str, OffsetSet],
    rules_since: datetime | None,
) -> Iterator[Gap | _BeforeRules | int]:
    """Yield what differs, and the number of rows of each page, but for those that expired."""
    connection.execute("CREATE TEMP TABLE seen (event_id VARCHAR)")
    anew_columns = [_quoted(column.anew) if column.anew else "NULL" for column in columns]
    anew_sql = (
        f'SELECT {", ".join(["data.event_id", *anew_columns])} FROM "{schema}".data AS data'
        " WHERE data.event_id IN (SELECT unnest($1::VARCHAR[]))"
    )
    own_columns = [_quoted(column.here) if column.here else "NULL" for column in columns]
    own_columns += ["_sdc_writer", "_sdc_offset", _LOADED_AT if rules_since else "NULL"]
    own_sql = f'SELECT {", ".join(["event_id", *own_columns])} FROM "{schema}".data'
    order = f" ORDER BY event_id LIMIT {_PAGE_ROWS}"
    page = target.query(f"{own_sql} WHERE event_id IS NOT NULL{order}").rows
    while page:
        ids = [str(row[0]) for row in page]
        truth = {row[0]: row[1:] for row in connection.execute(anew_sql, [ids]).fetchall()}
        connection.execute("INSERT INTO seen SELECT unnest($1::VARCHAR[])", [ids])
        compared = 0
        for event_id, *values, writer, offset, loaded_at in page:
            if _is_among(expired, writer, offset):
                continue
            compared += 1
            anew = truth.get(event_id)
            if anew is None:
                yield Gap(f"{event_id} is in {schema}.data and in no landing file.")
            elif differing := _differing(values, anew, columns):
                if isinstance(loaded_at, datetime) and rules_since and loaded_at < rules_since:
                    yield _BeforeRules(differing)
                else:
                    yield _differs(str(event_id), differing, _place(columns, anew), schema)
        yield compared
        page = target.query(f"{own_sql} WHERE event_id > $1{order}", [ids[-1]]).rows
    missing = connection.execute(
        f'SELECT event_id, _sdc_writer, _sdc_offset FROM "{schema}".data'
        f" WHERE event_id NOT IN (SELECT event_id FROM seen) ORDER BY event_id"
    ).fetchall()
    for event_id, writer, offset in missing:
        yield Gap(
            f"{event_id} is not in {schema}.data: it was landed as offset {offset} of {writer}.",
            writer,
            offset,
            offset,
        )


def _is_among(offsets: Mapping[str, OffsetSet], writer: object, offset: object) -> bool:
    return str(writer) in offsets and offsets[str(writer)].covers(
        int(str(offset)), int(str(offset))
    )


def _differing(
    values: Sequence[object], truth: Sequence[object], columns: Sequence[_Matched]
) -> list[str]:
    """Return the columns in which a row is not what it should be."""
    return sorted(
        column.here or f"{column.anew} (missing)"
        for column, value, other in zip(columns, values, truth, strict=True)
        if value != other and _plain(value, column.type) != _plain(other, column.type)
    )


def _differs(event_id: str, columns: list[str], place: tuple[str, int, int], schema: str) -> Gap:
    return Gap(
        f"{event_id} in {schema}.data differs from offset {place[1]} of {place[0]} in:"
        f" {', '.join(columns)}.",
        *place,
    )


def _place(columns: Sequence[_Matched], truth: Sequence[object]) -> tuple[str, int, int]:
    values: Mapping[str | None, object] = dict(
        zip((column.anew for column in columns), truth, strict=True)
    )
    offset = int(str(values["_sdc_offset"]))
    return str(values["_sdc_writer"]), offset, offset


def _plain(value: object, kind: ColumnType) -> object:
    """Return a value as any warehouse has it."""
    if kind is ColumnType.JSON and isinstance(value, str):
        return json.loads(value)
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
