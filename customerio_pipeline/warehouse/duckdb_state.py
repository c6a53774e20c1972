"""What a schema of a DuckDB file holds, as loading asks for it."""

import duckdb

from customerio_pipeline.loading.target import DATA, ColumnType, SchemaState
from customerio_pipeline.warehouse.duckdb_file import CATALOG
from customerio_pipeline.warehouse.duckdb_tables import COLUMN_TYPES, KEY, qualified
from customerio_pipeline.warehouse.table_rows import schema_state


def read_state(connection: duckdb.DuckDBPyConnection, schema: str) -> SchemaState:
    """Read the state of `schema` from the attached file; empty when it is not there.

    Raises:
        duckdb.Error: it cannot be read.
    """
    found = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns()"
        " WHERE database_name = ? AND schema_name = ?",
        [CATALOG, schema],
    ).fetchall()
    types = {name: kind for kind, name in COLUMN_TYPES.items()}
    tables: dict[str, dict[str, ColumnType | None]] = {}
    for table, name, kind in found:
        if name != KEY:
            tables.setdefault(table, {})[name] = types.get(kind)
    if DATA not in tables:
        return SchemaState({}, (), {})
    watermarks = connection.execute(
        f"SELECT writer, first_offset, next_offset FROM {qualified(schema, '_sdc_watermarks')}"
    ).fetchall()
    columns = connection.execute(
        "SELECT name, type, path, kind, base_name, table_name"
        f" FROM {qualified(schema, '_sdc_columns')}"
    ).fetchall()
    return schema_state(watermarks, columns, tables)
