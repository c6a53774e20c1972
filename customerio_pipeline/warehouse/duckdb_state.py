"""What a schema of a DuckDB file holds, as loading asks for it."""

from contextlib import suppress

import duckdb

from customerio_pipeline.loading.target import DATA, ColumnType, SchemaState
from customerio_pipeline.warehouse.duckdb_tables import KEY, qualified, table_columns
from customerio_pipeline.warehouse.table_rows import schema_state


def read_state(connection: duckdb.DuckDBPyConnection, schema: str) -> SchemaState:
    """Read the state of `schema` from the attached file; empty when it is not there.

    Raises:
        duckdb.Error: it cannot be read.
    """
    data = _columns(connection, schema, DATA)
    if not data:
        return SchemaState({}, (), {})
    watermarks = connection.execute(
        f"SELECT writer, first_offset, next_offset FROM {qualified(schema, '_sdc_watermarks')}"
    ).fetchall()
    held: list[tuple[str, int]] = []
    with suppress(duckdb.CatalogException):  # of a release that held nothing
        held = connection.execute(
            f'SELECT writer, "offset" FROM {qualified(schema, "_sdc_held")}'
        ).fetchall()
    columns = connection.execute(
        "SELECT name, type, path, kind, base_name, table_name"
        f" FROM {qualified(schema, '_sdc_columns')}"
    ).fetchall()
    tables = {name: _columns(connection, schema, name) for name in {row[-1] for row in columns}}
    return schema_state(watermarks, columns, {**tables, DATA: data}, held)


def _columns(
    connection: duckdb.DuckDBPyConnection, schema: str, table: str
) -> dict[str, ColumnType | None]:
    """Return the columns of a table but our own key; none where there is no such table."""
    try:
        columns = table_columns(connection, schema, table)
    except duckdb.CatalogException:
        return {}
    return {name: kind for name, kind in columns.items() if name != KEY}
