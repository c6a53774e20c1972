"""Merging a batch into PostgreSQL: COPY into a temporary table, then INSERT … ON CONFLICT."""

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import Cursor, sql

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Batch, ColumnType, MergeCounts
from customerio_pipeline.warehouse.postgres_connection import Connection
from customerio_pipeline.warehouse.postgres_copy import copy_rows
from customerio_pipeline.warehouse.postgres_rejected import reject
from customerio_pipeline.warehouse.postgres_tables import (
    Table,
    Tables,
    definitions,
    qualified,
    subtable_names,
)
from customerio_pipeline.warehouse.postgres_views import PostgresViews
from customerio_pipeline.warehouse.table_rows import (
    column_rows,
    load_row,
    loaded_meanwhile,
    watermark_rows,
)

_MOST_COLUMNS = 1600
"""PostgreSQL's limit of columns in a table."""

_STAGED = sql.Identifier("pg_temp", "staged")


class PostgresMerge:
    """Merges batches over one connection; the temporary table is kept from batch to batch.

    Making it for each would write its columns to the catalog at every load.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._staged: dict[str, ColumnType] = {}
        self._rows_after: dict[str, tuple[int, int]] = {}

    def merge(self, schema: str, batch: Batch, tables: Tables, views: PostgresViews) -> MergeCounts:
        """Merge in one transaction (design C4); `tables` has every column of the batch.

        Raises:
            psycopg.Error: the server refuses; nothing was changed.
            WarehouseError: the batch holds offsets that are loaded already.
        """
        staged = {**self._staged, **batch.columns}
        if len(staged) > _MOST_COLUMNS:  # those of several schemas together
            staged = dict(batch.columns)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            loaded_before, loaded_after = _advance_watermarks(cursor, schema, batch)
            _hold_and_release(cursor, schema, batch)
            if staged != self._staged:
                cursor.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(_STAGED))
                cursor.execute(
                    sql.SQL("CREATE TEMPORARY TABLE staged ({}) ON COMMIT DELETE ROWS").format(
                        definitions(staged)
                    )
                )
            copy_rows(cursor, _STAGED, batch.rows)
            inserted, updated = _upsert(cursor, schema, batch, tables[DATA])
            counts = MergeCounts(
                rejected=reject(cursor, schema, batch),
                inserted=inserted,
                updated=len(updated),
                stale=batch.rows.num_rows - inserted - len(updated),
                row_count=inserted + self._row_count(cursor, schema, loaded_before),
            )
            if updated:
                for name in subtable_names(self._connection, schema, tables):
                    _delete_elements(cursor, schema, name, updated)
            _insert_elements(cursor, schema, batch, counts)
            _insert_metadata(cursor, schema, batch, counts)
            views.keep(self._connection, schema, tables[DATA].columns)
        self._staged = staged
        self._rows_after[schema] = loaded_after, counts.row_count
        return counts

    def forget(self, schema: str) -> None:
        """Count the rows of `schema` anew at its next merge: somebody else changed them."""
        self._rows_after.pop(schema, None)

    def _row_count(self, cursor: Cursor[tuple[object, ...]], schema: str, loaded: int) -> int:
        """Return the rows of `data` before this load, without counting them.

        Each load notes how many it inserted. As long as nobody else loads in between (the number
        of offsets loaded tells), not even these need be added up.
        """
        known_loaded, rows = self._rows_after.get(schema, (-1, 0))
        if known_loaded == loaded:
            return rows
        return _number(
            cursor.execute(
                sql.SQL("SELECT coalesce(sum(inserted), 0)::bigint FROM {}").format(
                    qualified(schema, "_sdc_loads")
                )
            ).fetchone()
        )


def _advance_watermarks(
    cursor: Cursor[tuple[object, ...]], schema: str, batch: Batch
) -> tuple[int, int]:
    """Return how many offsets were loaded and not held before the batch, and are after it."""
    table = qualified(schema, "_sdc_watermarks")
    loaded: dict[str, OffsetSet] = {}
    cursor.execute(sql.SQL("SELECT writer, first_offset, next_offset - 1 FROM {}").format(table))
    for writer, first, last in cursor:
        loaded.setdefault(str(writer), OffsetSet()).add(_number((first,)), _number((last,)))
    before = sum(map(len, loaded.values()))
    for writer in batch.loaded:
        offsets = loaded.setdefault(writer, OffsetSet())
        rows = watermark_rows(writer, offsets, batch)
        cursor.execute(sql.SQL("DELETE FROM {} WHERE writer = %s").format(table), [writer])
        cursor.executemany(sql.SQL("INSERT INTO {} VALUES (%s, %s, %s)").format(table), rows)
    after = sum(map(len, loaded.values()))
    held = _number(
        cursor.execute(
            sql.SQL("SELECT count(*) FROM {}").format(qualified(schema, "_sdc_held"))
        ).fetchone()
    )
    released = sum(map(len, batch.released.values()))
    return before - held, after - held - batch.held.num_rows + released


def _hold_and_release(cursor: Cursor[tuple[object, ...]], schema: str, batch: Batch) -> None:
    table = qualified(schema, "_sdc_held")
    for writer, offsets in batch.released.items():
        released = 0
        for first, last in offsets:
            released += cursor.execute(
                sql.SQL('DELETE FROM {} WHERE writer = %s AND "offset" BETWEEN %s AND %s').format(
                    table
                ),
                [writer, first, last],
            ).rowcount
        if released != len(offsets):
            raise loaded_meanwhile(writer)
    if batch.held.num_rows:
        copy_rows(cursor, table, batch.held)


def _upsert(
    cursor: Cursor[tuple[object, ...]],
    schema: str,
    batch: Batch,
    data: Table,
) -> tuple[int, list[str]]:
    """Merge the staged rows; return how many were inserted, and the event_ids of those updated."""
    names = sql.SQL(", ").join(map(sql.Identifier, batch.columns))
    # The whole row is replaced: columns without a value in the batch, too.
    replaced = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in data.columns
        if name not in data.generated
    )
    # The latest row of an event_id wins, whatever order files are loaded in (design C5). A row
    # without an order, from before somebody dropped one of the columns, is older than any.
    statement = sql.SQL(
        "WITH merged AS (INSERT INTO {data} AS data ({names}) SELECT {names} FROM {staged}"
        " ON CONFLICT (event_id) DO UPDATE SET {replaced}"
        " WHERE ((excluded._sdc_sequence, excluded._sdc_writer, excluded._sdc_offset)"
        "  > (data._sdc_sequence, data._sdc_writer, data._sdc_offset)) IS NOT FALSE{or_differs}"
        # A row that replaced another bears the number of the transaction that locked that.
        " RETURNING event_id, data.xmax = 0 AS is_new)"
        " SELECT count(*) FILTER (WHERE is_new),"
        "  coalesce(array_agg(event_id) FILTER (WHERE NOT is_new), '{{}}') FROM merged"
    ).format(
        data=qualified(schema, DATA),
        names=names,
        staged=_STAGED,
        replaced=replaced,
        or_differs=_or_differs(batch, data),
    )
    [(inserted, updated)] = cursor.execute(statement).fetchall()
    return _number((inserted,)), list(updated)  # type: ignore[call-overload]  # an array


def _or_differs(batch: Batch, data: Table) -> sql.Composable:
    """Return the condition on which a replay replaces a row that came with the same delivery."""
    if batch.replay is None:
        return sql.SQL("")
    compared = batch.replay.compared
    differences = sql.SQL(" OR ").join(
        # As text: `json` has no equality.
        sql.SQL("data.{0}::text IS DISTINCT FROM excluded.{0}::text").format(sql.Identifier(name))
        for name in compared or ()
        if name in data.columns and name not in data.generated
    )
    return sql.SQL(
        " OR (excluded._sdc_sequence, excluded._sdc_writer, excluded._sdc_offset)"
        " = (data._sdc_sequence, data._sdc_writer, data._sdc_offset) AND ({})"
    ).format(sql.SQL("true") if compared is None else differences)


def _delete_elements(
    cursor: Cursor[tuple[object, ...]], schema: str, table: str, event_ids: list[str]
) -> None:
    """Remove the elements of earlier versions of events."""
    cursor.execute(
        sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(
            qualified(schema, table), sql.Identifier(SOURCE_KEY)
        ),
        [event_ids],
    )


def _insert_elements(
    cursor: Cursor[tuple[object, ...]], schema: str, batch: Batch, counts: MergeCounts
) -> None:
    """Insert the elements of the rows that were written."""
    if not batch.subtables:
        return
    stale = _stale(cursor, schema) if counts.stale else []
    for subtable in batch.subtables:
        belongs = pc.invert(pc.is_in(subtable.rows[SOURCE_KEY], pa.array(stale, pa.string())))
        copy_rows(cursor, qualified(schema, subtable.name), subtable.rows.filter(belongs))


def _stale(cursor: Cursor[tuple[object, ...]], schema: str) -> list[object]:
    """Return the event_ids of staged rows that are older than those in `data`."""
    order = "({0}._sdc_sequence, {0}._sdc_writer, {0}._sdc_offset)"
    rows = cursor.execute(
        sql.SQL(
            "SELECT event_id FROM {} AS staged JOIN {} AS data USING (event_id)"
            f" WHERE {order.format('staged')} IS DISTINCT FROM {order.format('data')}"
        ).format(_STAGED, qualified(schema, DATA))
    ).fetchall()
    return [event_id for (event_id,) in rows]


def _insert_metadata(
    cursor: Cursor[tuple[object, ...]], schema: str, batch: Batch, counts: MergeCounts
) -> None:
    if batch.mappings:
        cursor.executemany(
            sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s, %s, %s)").format(
                qualified(schema, "_sdc_columns")
            ),
            column_rows(batch.mappings, batch.batched_at),
        )
    row = load_row(batch, counts)
    cursor.execute(
        sql.SQL("INSERT INTO {} VALUES ({})").format(
            qualified(schema, "_sdc_loads"), sql.SQL(", ").join(sql.Placeholder() * len(row))
        ),
        row,
    )


def _number(row: tuple[object, ...] | None) -> int:
    """Return the integer that a row of one column holds."""
    if row is None or not isinstance(row[0], int):
        raise TypeError(f"{row} is no integer")
    return row[0]
