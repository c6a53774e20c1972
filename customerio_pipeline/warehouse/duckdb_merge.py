"""Merging a batch into DuckDB: find the hits, delete what is older, insert what is newer.

No index, no UPDATE, no MERGE: they are two to five times slower and grow with the table.
"""

from collections.abc import Sequence
from contextlib import suppress
from itertools import chain

import duckdb
import pyarrow as pa

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Batch, ColumnType, MergeCounts
from customerio_pipeline.warehouse.duckdb_file import CATALOG
from customerio_pipeline.warehouse.duckdb_rejected import reject
from customerio_pipeline.warehouse.duckdb_tables import (
    COLUMN_TYPES,
    KEY,
    KEY_EXPRESSION,
    create_schema,
    evolve_data,
    evolve_subtable,
    qualified,
    quoted,
)
from customerio_pipeline.warehouse.duckdb_views import DuckDBViews
from customerio_pipeline.warehouse.id_ranges import id_ranges
from customerio_pipeline.warehouse.table_rows import (
    column_rows,
    load_row,
    loaded_meanwhile,
    watermark_rows,
)

# The latest row of an event_id wins, whatever order files are loaded in (design C5).
# A row without an order, from before somebody dropped one of the columns, is older than any.
_ORDER = (
    "(coalesce({0}._sdc_sequence, -1), coalesce({0}._sdc_writer, ''),"
    " coalesce({0}._sdc_offset, -1))"
)


def merge(
    connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch, views: DuckDBViews
) -> MergeCounts:
    """Merge in one transaction; on any error it is rolled back.

    Raises:
        duckdb.Error: the file cannot take it; the connection may be of no more use.
        WarehouseError: the batch holds offsets that are loaded already.
    """
    _view_rows(connection, batch)
    connection.execute("BEGIN TRANSACTION")
    try:
        create_schema(connection, schema)
        _advance_watermarks(connection, schema, batch)
        _hold_and_release(connection, schema, batch)
        columns = evolve_data(connection, schema, batch.columns)
        rejected = reject(connection, schema, batch)
        counts = _merge_rows(connection, schema, batch, rejected)
        _merge_subtables(connection, schema, batch, counts)
        _insert_metadata(connection, schema, batch, counts)
        views.keep(connection, schema, columns)
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a commit that failed has done it, an internal error bars it
            connection.execute("ROLLBACK")
            _forget_rows(connection)
        raise
    _forget_rows(connection)
    return counts


def _forget_rows(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DROP TABLE IF EXISTS temp.hits")
    connection.execute("DROP VIEW temp.staged")
    connection.unregister("staged_rows")


def _view_rows(connection: duckdb.DuckDBPyConnection, batch: Batch) -> None:
    """Make the batch's rows readable as ``staged``, without a copy."""
    selected = ", ".join(
        f"CAST({quoted(name)} AS {COLUMN_TYPES[kind]}) AS {quoted(name)}"
        if kind in (ColumnType.JSON, ColumnType.TIMESTAMP)
        else quoted(name)
        for name, kind in batch.columns.items()
    )
    connection.register("staged_rows", batch.rows)
    # Once, for the key is needed twice.
    keys = connection.sql(f"SELECT {KEY_EXPRESSION} AS key FROM staged_rows").to_arrow_table()
    connection.register("staged_rows", batch.rows.append_column(KEY, keys["key"]))
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW staged AS SELECT {selected}, {KEY} FROM staged_rows"
    )


def _advance_watermarks(connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch) -> None:
    table = qualified(schema, "_sdc_watermarks")
    for writer in batch.loaded:
        loaded = OffsetSet(
            connection.execute(
                f"SELECT first_offset, next_offset - 1 FROM {table} WHERE writer = ?", [writer]
            ).fetchall()
        )
        rows = watermark_rows(writer, loaded, batch)
        connection.execute(f"DELETE FROM {table} WHERE writer = ?", [writer])
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)


def _hold_and_release(connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch) -> None:
    table = qualified(schema, "_sdc_held")
    for writer, offsets in batch.released.items():
        released = 0
        for first, last in offsets:
            released += _row(
                connection,
                f'DELETE FROM {table} WHERE writer = ? AND "offset" BETWEEN ? AND ?',
                [writer, first, last],
            )[0]
        if released != len(offsets):
            raise loaded_meanwhile(writer)
    if batch.held.num_rows:
        _from_arrow(connection, f"INSERT INTO {table} SELECT * FROM arrow_rows", batch.held)


def _merge_rows(
    connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch, rejected: int
) -> MergeCounts:
    data = qualified(schema, "data")
    ranges = id_ranges(batch.rows["event_id"])
    # On the event_id itself, for it lets DuckDB skip row groups.
    within = " OR ".join(["data.event_id BETWEEN ? AND ?"] * len(ranges)) or "true"
    # Equal keys may be a collision of hashes: the event_id decides.
    connection.execute(
        "CREATE TEMP TABLE hits AS SELECT data.rowid AS row, staged.event_id AS event_id,"
        f" {_is_newer(batch)} AS is_newer"
        f" FROM {data} AS data JOIN staged"
        f" ON data.{KEY} = staged.{KEY} AND data.event_id = staged.event_id WHERE {within}",
        list(chain.from_iterable(ranges)),
    )
    hits, updated = _row(connection, "SELECT count(*), count(*) FILTER (WHERE is_newer) FROM hits")
    if updated:
        connection.execute(
            f"DELETE FROM {data} WHERE rowid IN (SELECT row FROM hits WHERE is_newer)"
        )
    stale_filter = (
        " WHERE event_id NOT IN (SELECT event_id FROM hits WHERE NOT is_newer)"
        if hits > updated
        else ""
    )
    written = _row(connection, f"INSERT INTO {data} BY NAME SELECT * FROM staged{stale_filter}")[0]
    row_count = _row(connection, f"SELECT count(*) FROM {data}")[0]
    return MergeCounts(
        inserted=written - updated,
        updated=updated,
        stale=hits - updated,
        row_count=row_count,
        rejected=rejected,
    )


def _is_newer(batch: Batch) -> str:
    """Return whether a staged row is to replace the one in `data`."""
    staged, data = _ORDER.format("staged"), _ORDER.format("data")
    if batch.replay is None:
        return f"{staged} > {data}"
    if batch.replay.compared is None:
        return f"{staged} >= {data}"
    differences = " OR ".join(
        f"data.{quoted(name)} IS DISTINCT FROM"
        f" {f'staged.{quoted(name)}' if name in batch.columns else 'NULL'}"
        for name in batch.replay.compared
    )
    return f"({staged} > {data} OR ({staged} = {data} AND ({differences})))"


def _merge_subtables(
    connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch, counts: MergeCounts
) -> None:
    """Put the elements of the rows just written in the place of those of earlier versions."""
    if counts.updated:
        for (name,) in connection.execute(
            f"SELECT DISTINCT table_name FROM {qualified(schema, '_sdc_columns')}"
            " WHERE table_name <> ? AND table_name IN (SELECT table_name FROM duckdb_tables()"
            "  WHERE database_name = ? AND schema_name = ?)",
            [DATA, CATALOG, schema],
        ).fetchall():
            connection.execute(
                f"DELETE FROM {qualified(schema, name)} WHERE {SOURCE_KEY} IN"
                " (SELECT event_id FROM hits WHERE is_newer)"
            )
    for subtable in batch.subtables:
        evolve_subtable(connection, schema, subtable)
        selected = ", ".join(
            f"CAST({quoted(name)} AS {COLUMN_TYPES[kind]}) AS {quoted(name)}"
            for name, kind in subtable.columns.items()
        )
        _from_arrow(
            connection,
            f"INSERT INTO {qualified(schema, subtable.name)} BY NAME SELECT {selected}"
            f" FROM arrow_rows WHERE {SOURCE_KEY} NOT IN"
            "  (SELECT event_id FROM hits WHERE NOT is_newer)",
            subtable.rows,
        )


def _insert_metadata(
    connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch, counts: MergeCounts
) -> None:
    if batch.mappings:
        connection.executemany(
            f"INSERT INTO {qualified(schema, '_sdc_columns')} VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            column_rows(batch.mappings, batch.batched_at),
        )
    row = load_row(batch, counts)
    connection.execute(
        f"INSERT INTO {qualified(schema, '_sdc_loads')} VALUES ({', '.join('?' * len(row))})",
        list(row),
    )


def _from_arrow(connection: duckdb.DuckDBPyConnection, sql: str, rows: pa.Table) -> None:
    connection.register("arrow_rows", rows)
    try:
        connection.execute(sql)
    finally:
        connection.unregister("arrow_rows")


def _row(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object] = ()
) -> tuple[int, ...]:
    # fetchone would leave the result open and the connection in use.
    found: tuple[int, ...] = connection.execute(sql, list(parameters)).fetchall()[0]
    return found
