"""A schema of a PostgreSQL database that is filled beside another, and then takes its place.

Rows are moved, not tables: privileges, indexes and other people's views stay as they are.
"""

from collections.abc import Mapping

from psycopg import sql

from customerio_pipeline.loading.target import DATA, ColumnType
from customerio_pipeline.warehouse.postgres_connection import Connection
from customerio_pipeline.warehouse.postgres_tables import (
    METADATA_TABLES,
    Tables,
    Wanted,
    evolve,
    look,
    qualified,
    subtable_names,
)
from customerio_pipeline.warehouse.postgres_views import PostgresViews


def prepare(connection: Connection, schema: str, beside: str, wait_seconds: float) -> None:
    """Make `beside` anew: no rows, but the tables, columns and mapping of `schema`.

    Raises:
        psycopg.Error: the server refuses.
    """
    drop(connection, beside)
    tables = look(connection, schema)
    if DATA not in tables or not METADATA_TABLES.keys() <= tables.keys():
        # Nothing is loaded yet, or by an earlier release: the columns are found anew.
        return
    evolve(connection, beside, _wanted(connection, schema, tables), wait_seconds)
    connection.execute(
        sql.SQL("INSERT INTO {} SELECT * FROM {}").format(
            qualified(beside, "_sdc_columns"), qualified(schema, "_sdc_columns")
        )
    )


def finish(
    connection: Connection, schema: str, beside: str, views: PostgresViews, wait_seconds: float
) -> None:
    """Put what `beside` holds in the place of what `schema` holds, and drop `beside`.

    Raises:
        psycopg.Error: the server refuses; no row was changed.
    """
    new = look(connection, beside)
    tables = evolve(connection, schema, _wanted(connection, beside, new), wait_seconds)
    moved = [DATA, *subtable_names(connection, beside, new), *METADATA_TABLES]
    with connection.transaction():
        for table in moved:
            names = sql.SQL(", ").join(
                sql.Identifier(name)
                for name in new[table].columns
                if name not in tables[table].generated
            )
            connection.execute(sql.SQL("DELETE FROM {}").format(qualified(schema, table)))
            connection.execute(
                sql.SQL("INSERT INTO {} ({names}) SELECT {names} FROM {}").format(
                    qualified(schema, table), qualified(beside, table), names=names
                )
            )
        views.keep(connection, schema, tables[DATA].columns)
        drop(connection, beside)


def drop(connection: Connection, schema: str) -> None:
    """Drop a schema and all that is in it."""
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def _wanted(connection: Connection, schema: str, tables: Tables) -> list[Wanted]:
    """Describe `data` and the tables of arrays of a schema."""
    wanted = []
    for name in [DATA, *subtable_names(connection, schema, tables)]:
        table = tables[name]
        columns: Mapping[str, ColumnType] = {
            column: kind
            for column, kind in table.columns.items()
            if kind is not None and column not in table.generated
        }
        # The key is the shortest set of columns that an index holds unique together.
        key = min(table.unique, key=lambda names: (len(names), sorted(names)))
        wanted.append(Wanted(name, columns, tuple(sorted(key))))
    return wanted
