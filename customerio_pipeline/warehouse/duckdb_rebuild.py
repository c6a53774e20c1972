"""A schema of a DuckDB file that is filled beside another, and then takes its place."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb

from customerio_pipeline.loading.target import DATA
from customerio_pipeline.warehouse.duckdb_file import ALIAS, CATALOG
from customerio_pipeline.warehouse.duckdb_tables import (
    METADATA_TABLES,
    create_schema,
    evolve_like,
    qualified,
    quoted,
    table_columns,
)
from customerio_pipeline.warehouse.duckdb_views import DuckDBViews


def prepare(connection: duckdb.DuckDBPyConnection, schema: str, beside: str) -> None:
    """Make `beside` anew: no rows, but the tables, columns and mapping of `schema`.

    Raises:
        duckdb.Error: nothing was changed.
    """
    with transaction(connection):
        drop(connection, beside)
        create_schema(connection, schema)
        create_schema(connection, beside)
        _copy(connection, schema, beside, "_sdc_columns")
        for table in data_tables(connection, schema):
            evolve_like(connection, schema, beside, table)


def finish(
    connection: duckdb.DuckDBPyConnection, schema: str, beside: str, views: DuckDBViews
) -> None:
    """Put what `beside` holds in the place of what `schema` holds, and drop `beside`.

    Raises:
        duckdb.Error: nothing was changed.
    """
    with transaction(connection):
        create_schema(connection, schema)
        for table in [*data_tables(connection, beside), *METADATA_TABLES]:
            evolve_like(connection, beside, schema, table)
            connection.execute(f"DELETE FROM {qualified(schema, table)}")
            _copy(connection, beside, schema, table)
        drop(connection, beside)
        views.keep(connection, schema, table_columns(connection, schema, DATA))


def drop(connection: duckdb.DuckDBPyConnection, schema: str) -> None:
    """Drop a schema and all that is in it."""
    connection.execute(f"DROP SCHEMA IF EXISTS {ALIAS}.{quoted(schema)} CASCADE")


def data_tables(connection: duckdb.DuckDBPyConnection, schema: str) -> list[str]:
    """Return `data` and the tables of arrays, as far as they are there."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = ?"
        f" AND table_name IN (SELECT ? UNION SELECT table_name FROM"
        f"  {qualified(schema, '_sdc_columns')}) ORDER BY table_name",
        [CATALOG, schema, DATA],
    ).fetchall()
    return [name for (name,) in found]


def _copy(connection: duckdb.DuckDBPyConnection, source: str, schema: str, table: str) -> None:
    connection.execute(
        f"INSERT INTO {qualified(schema, table)} BY NAME SELECT * FROM {qualified(source, table)}"
    )


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit at the end of the block, roll back on any error."""
    connection.execute("BEGIN TRANSACTION")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):  # a commit that failed has done it
            connection.execute("ROLLBACK")
        raise
