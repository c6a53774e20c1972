"""Removing rows from a DuckDB file, as an erasure asks for it."""

from collections.abc import Sequence

import duckdb

from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Removal, RemovalCounts
from customerio_pipeline.warehouse.duckdb_rebuild import data_tables, transaction
from customerio_pipeline.warehouse.duckdb_tables import create_schema, qualified
from customerio_pipeline.warehouse.table_rows import removal_row


def remove(connection: duckdb.DuckDBPyConnection, schema: str, removal: Removal) -> RemovalCounts:
    """Remove rows in one transaction.

    Raises:
        duckdb.Error: nothing was changed.
    """
    event_ids = [list(removal.event_ids)]
    with transaction(connection):
        create_schema(connection, schema)  # a warehouse of an earlier release lacks some tables
        removed = {
            table: _count(
                connection,
                f"DELETE FROM {qualified(schema, table)}"
                f" WHERE {'event_id' if table == DATA else SOURCE_KEY} IN (SELECT unnest(?))",
                event_ids,
            )
            for table in data_tables(connection, schema)
        }
        rejected = sum(
            _count(
                connection,
                f"DELETE FROM {qualified(schema, '_sdc_rejected')}"
                ' WHERE writer = ? AND "offset" = ? AND record = ?',
                list(row),
            )
            for row in dict.fromkeys(removal.rejected)
        )
        held = sum(
            _count(
                connection,
                f"DELETE FROM {qualified(schema, '_sdc_held')}"
                ' WHERE writer = ? AND "offset" BETWEEN ? AND ?',
                [writer, *interval],
            )
            for writer, offsets in removal.held.items()
            for interval in offsets
        )
        counts = RemovalCounts(removed.pop(DATA, 0), removed, rejected, held)
        row = removal_row(removal, counts)
        if row is not None:
            connection.execute(
                f"INSERT INTO {qualified(schema, '_sdc_loads')}"
                f" VALUES ({', '.join('?' * len(row))})",
                list(row),
            )
    return counts


def _count(connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[object]) -> int:
    return int(connection.execute(sql, list(parameters)).fetchall()[0][0])
