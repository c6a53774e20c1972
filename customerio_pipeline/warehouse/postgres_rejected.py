"""Rejected records in PostgreSQL: added by a load, exchanged by a replay."""

import pyarrow as pa
from psycopg import Cursor, sql

from customerio_pipeline.loading.target import Batch, Replay
from customerio_pipeline.warehouse.postgres_copy import copy_rows
from customerio_pipeline.warehouse.postgres_tables import METADATA_TABLES, qualified

_AGAIN = sql.Identifier("pg_temp", "rejected_again")
_REPLAYED = sql.Identifier("pg_temp", "replayed")

# One that is rejected again stays as it is, and with it the time of its rejection.
_SAME = sql.SQL(
    'old.writer = again.writer AND old."offset" = again."offset"'
    " AND old.record = again.record AND old.reason = again.reason"
)


def reject(cursor: Cursor[tuple[object, ...]], schema: str, batch: Batch) -> int:
    """Write the rejected records of a batch; return how many more there are than before.

    Raises:
        psycopg.Error: the server refuses.
    """
    table = qualified(schema, "_sdc_rejected")
    if batch.replay is not None:
        return _exchange(cursor, table, batch.rejected, batch.replay)
    if batch.rejected.num_rows:
        copy_rows(cursor, table, batch.rejected)
    return int(batch.rejected.num_rows)


def _exchange(
    cursor: Cursor[tuple[object, ...]], table: sql.Identifier, rejected: pa.Table, replay: Replay
) -> int:
    for name, columns in (
        (_AGAIN, METADATA_TABLES["_sdc_rejected"]),
        (_REPLAYED, "writer text, first bigint, last bigint"),
    ):
        cursor.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(name, sql.SQL(columns))
        )
    copy_rows(cursor, _AGAIN, rejected)
    cursor.executemany(
        sql.SQL("INSERT INTO {} VALUES (%s, %s, %s)").format(_REPLAYED),
        [(writer, *interval) for writer, those in replay.offsets.items() for interval in those],
    )
    taken = cursor.execute(
        sql.SQL(
            "DELETE FROM {} AS old WHERE EXISTS (SELECT 1 FROM {} AS replayed WHERE"
            ' replayed.writer = old.writer AND old."offset" BETWEEN first AND last)'
            " AND NOT EXISTS (SELECT 1 FROM {} AS again WHERE {})"
        ).format(table, _REPLAYED, _AGAIN, _SAME)
    ).rowcount
    added = cursor.execute(
        sql.SQL(
            "INSERT INTO {0} SELECT * FROM {1} AS again"
            " WHERE NOT EXISTS (SELECT 1 FROM {0} AS old WHERE {2})"
        ).format(table, _AGAIN, _SAME)
    ).rowcount
    return added - taken
