"""Comparing: every row of the tables with what the landing files come to, loaded anew beside it.

Landing is the truth and the table a function of it (design C5), so the files are loaded into a
warehouse of their own, and the two tables compared value by value. Columns are matched by what they
hold, for a name may depend on what came first.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import duckdb

from customerio_pipeline.landing.erasures import FOLDER as ERASURES
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.joining import cut_file
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases, release
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.loading.target import SchemaState, Target
from customerio_pipeline.verifying.array_content import ArrayTable
from customerio_pipeline.verifying.conservation import Gap
from customerio_pipeline.verifying.matching import (
    MatchedColumn,
    matched_arrays,
    matched_data,
    plain,
    quoted,
)
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget

_PAGE_ROWS = 20_000
_MOST_GAPS = 20
_OF_EACH_ROW = "event_id VARCHAR, _sdc_writer VARCHAR, _sdc_offset BIGINT"
_LOADED_AT = "_sdc_batched_at"


class Comparison(NamedTuple):
    """What a comparison found."""

    rows: int
    """Rows compared."""

    gaps: list[Gap]
    """At most 20; the last one says how many more there are."""


def compare(
    target: Target, landing: Path, schema: str, layout: Layout, *, scratch: Path
) -> Comparison:
    """Compare all rows with the landing files whose offsets are loaded; loads wait meanwhile.

    Those of `data`, and of the tables of arrays where there are any.
    Memory holds 20,000 events; `scratch`, a folder, a second table meanwhile.

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
        _link_erasures(landing, folder / "landing", schema)
        file = folder / "anew.duckdb"
        anew = DuckDBTarget.from_url(f"duckdb:///{file}", wait_seconds=30, publish_seconds=0)
        loader = Loader(schema, folder / "landing", anew, layout=layout)
        try:
            for _ in drain(loader):
                pass
            states = state, anew.state(schema)
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
            columns = matched_data(*states).columns
            arrays = [
                ArrayTable(target, connection, schema, table) for table in matched_arrays(*states)
            ]
            for line in _differences(
                target,
                connection,
                schema,
                columns,
                arrays=arrays,
                expired=expired,
                rules_since=_since(states[0], layout.masking),
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


def _link_erasures(landing: Path, beside: Path, schema: str) -> None:
    """Let what was erased be left out of what is loaded anew, too."""
    erasures = landing / f"integration={schema}" / ERASURES
    if erasures.is_dir():
        link = beside / f"integration={schema}" / ERASURES
        link.symlink_to(erasures.absolute(), target_is_directory=True)


def _since(state: SchemaState, masking: Masking) -> datetime | None:
    """Return when the rules on fields last changed, where a row tells when it was loaded."""
    return masking.changed_at if _LOADED_AT in state.table_columns else None


def _differences(  # noqa: PLR0913  both sides, and what is compared
    target: Target,
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    columns: Sequence[MatchedColumn],
    *,
    arrays: Sequence[ArrayTable],
    expired: Mapping[str, OffsetSet],
    rules_since: datetime | None,
) -> Iterator[Gap | _BeforeRules | int]:
    """Yield what differs, and the number of rows of each page, but for those that expired."""
    connection.execute("CREATE TEMP TABLE seen (event_id VARCHAR)")
    anew_columns = [quoted(column.anew) if column.anew else "NULL" for column in columns]
    anew_sql = (
        f'SELECT {", ".join(["data.event_id", *anew_columns])} FROM "{schema}".data AS data'
        " WHERE data.event_id IN (SELECT unnest($1::VARCHAR[]))"
    )
    own_columns = [quoted(column.here) if column.here else "NULL" for column in columns]
    own_columns += ["_sdc_writer", "_sdc_offset", _LOADED_AT if rules_since else "NULL"]
    own_sql = f'SELECT {", ".join(["event_id", *own_columns])} FROM "{schema}".data'
    order = f" ORDER BY event_id LIMIT {_PAGE_ROWS}"
    page = target.query(f"{own_sql} WHERE event_id IS NOT NULL{order}").rows
    after = None
    while page:
        ids = [str(row[0]) for row in page]
        truth = {row[0]: row[1:] for row in connection.execute(anew_sql, [ids]).fetchall()}
        connection.execute("INSERT INTO seen SELECT unnest($1::VARCHAR[])", [ids])
        rows = 0
        compared = []
        for event_id, *values, writer, offset, loaded_at in page:
            if _is_among(expired, writer, offset):
                continue
            rows += 1
            is_before = _is_before(loaded_at, rules_since)
            yield from _of_row(
                str(event_id), values, truth.get(event_id), columns, schema, is_before=is_before
            )
            if event_id in truth and not is_before:
                compared.append(str(event_id))
        yield rows
        for table in arrays:
            yield from table.differences(after, ids[-1], ids, compared)
        after = ids[-1]
        page = target.query(f"{own_sql} WHERE event_id > $1{order}", [ids[-1]]).rows
    for table in arrays:
        yield from table.differences(after, None, (), ())
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


def _is_before(loaded_at: object, rules_since: datetime | None) -> bool:
    return rules_since is not None and isinstance(loaded_at, datetime) and loaded_at < rules_since


def _of_row(  # noqa: PLR0913  a row, and what it should be
    event_id: str,
    values: Sequence[object],
    truth: Sequence[object] | None,
    columns: Sequence[MatchedColumn],
    schema: str,
    *,
    is_before: bool,
) -> Iterator[Gap | _BeforeRules]:
    if truth is None:
        yield Gap(f"{event_id} is in {schema}.data and in no landing file.")
    elif differing := _differing(values, truth, columns):
        if is_before:
            yield _BeforeRules(differing)
        else:
            yield _differs(event_id, differing, _place(columns, truth), schema)


def _differing(
    values: Sequence[object], truth: Sequence[object], columns: Sequence[MatchedColumn]
) -> list[str]:
    """Return the columns in which a row is not what it should be."""
    return sorted(
        column.here or f"{column.anew} (missing)"
        for column, value, other in zip(columns, values, truth, strict=True)
        if value != other and plain(value, column.type) != plain(other, column.type)
    )


def _differs(event_id: str, columns: list[str], place: tuple[str, int, int], schema: str) -> Gap:
    return Gap(
        f"{event_id} in {schema}.data differs from offset {place[1]} of {place[0]} in:"
        f" {', '.join(columns)}.",
        *place,
    )


def _place(columns: Sequence[MatchedColumn], truth: Sequence[object]) -> tuple[str, int, int]:
    values: Mapping[str | None, object] = dict(
        zip((column.anew for column in columns), truth, strict=True)
    )
    offset = int(str(values["_sdc_offset"]))
    return str(values["_sdc_writer"]), offset, offset
