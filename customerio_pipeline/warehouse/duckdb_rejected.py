"""Rejected records in DuckDB: added by a load, exchanged by a replay."""

import duckdb
import pyarrow as pa

from customerio_pipeline.loading.target import Batch, Replay
from customerio_pipeline.warehouse.duckdb_tables import qualified

# One that is rejected again stays as it is, and with it the time of its rejection.
_SAME = (
    'old.writer = again.writer AND old."offset" = again."offset"'
    " AND old.record = again.record AND old.reason = again.reason"
)


def reject(connection: duckdb.DuckDBPyConnection, schema: str, batch: Batch) -> int:
    """Write the rejected records of a batch; return how many more there are than before.

    Raises:
        duckdb.Error: the file cannot take it.
    """
    table = qualified(schema, "_sdc_rejected")
    added = f"INSERT INTO {table} SELECT * FROM rejected_again AS again"
    taken = 0
    if batch.replay is None and not batch.rejected.num_rows:
        return 0
    connection.register("rejected_again", batch.rejected)
    try:
        if batch.replay is not None:
            taken = _take(connection, table, batch.replay)
            added += f" WHERE NOT EXISTS (FROM {table} AS old WHERE {_SAME})"
        return _count(connection, added) - taken
    finally:
        connection.unregister("rejected_again")


def _take(connection: duckdb.DuckDBPyConnection, table: str, replay: Replay) -> int:
    """Delete what the replayed deliveries had rejected and have no more; return how many."""
    rows = [(writer, *interval) for writer, those in replay.offsets.items() for interval in those]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    kinds = {"writer": pa.string(), "first": pa.int64(), "last": pa.int64()}
    connection.register(
        "replayed",
        pa.table(
            [pa.array(column, kind) for column, kind in zip(columns, kinds.values(), strict=True)],
            names=list(kinds),
        ),
    )
    try:
        return _count(
            connection,
            f"DELETE FROM {table} AS old WHERE EXISTS (FROM replayed WHERE"
            '  replayed.writer = old.writer AND old."offset" BETWEEN first AND last)'
            f" AND NOT EXISTS (FROM rejected_again AS again WHERE {_SAME})",
        )
    finally:
        connection.unregister("replayed")


def _count(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(connection.execute(sql).fetchall()[0][0])
