"""Removing rows from a PostgreSQL database, as an erasure asks for it."""

from psycopg import sql

from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Removal, RemovalCounts
from customerio_pipeline.warehouse.postgres_connection import Connection
from customerio_pipeline.warehouse.postgres_tables import look, qualified, subtable_names
from customerio_pipeline.warehouse.table_rows import removal_row


def remove(connection: Connection, schema: str, removal: Removal) -> RemovalCounts:
    """Remove rows in one transaction.

    Raises:
        psycopg.Error: the server refuses; nothing was changed.
    """
    tables = look(connection, schema)
    event_ids = list(removal.event_ids)
    with connection.transaction(), connection.cursor() as cursor:
        removed = {
            table: cursor.execute(
                sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(
                    qualified(schema, table),
                    sql.Identifier("event_id" if table == DATA else SOURCE_KEY),
                ),
                [event_ids],
            ).rowcount
            for table in [DATA, *subtable_names(connection, schema, tables)]
        }
        rejected = sum(
            cursor.execute(
                sql.SQL(
                    'DELETE FROM {} WHERE writer = %s AND "offset" = %s AND record = %s'
                ).format(qualified(schema, "_sdc_rejected")),
                row,
            ).rowcount
            for row in dict.fromkeys(removal.rejected)
        )
        held = 0
        if "_sdc_held" in tables:  # no warehouse of an earlier release
            held = sum(
                cursor.execute(
                    sql.SQL(
                        'DELETE FROM {} WHERE writer = %s AND "offset" BETWEEN %s AND %s'
                    ).format(qualified(schema, "_sdc_held")),
                    [writer, *interval],
                ).rowcount
                for writer, offsets in removal.held.items()
                for interval in offsets
            )
        counts = RemovalCounts(removed.pop(DATA), removed, rejected, held)
        row = removal_row(removal, counts)
        if row is not None:
            cursor.execute(
                sql.SQL("INSERT INTO {} VALUES ({})").format(
                    qualified(schema, "_sdc_loads"),
                    sql.SQL(", ").join(sql.Placeholder() * len(row)),
                ),
                row,
            )
    return counts
