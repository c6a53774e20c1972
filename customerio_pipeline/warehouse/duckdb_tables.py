"""Tables of an integration in DuckDB: names, types and how they come to be."""

from collections.abc import Collection, Mapping

import duckdb

from customerio_pipeline.loading.target import DATA, ColumnType, Subtable
from customerio_pipeline.warehouse.duckdb_file import ALIAS

COLUMN_TYPES = {
    ColumnType.TEXT: "VARCHAR",
    ColumnType.BIGINT: "BIGINT",
    ColumnType.DOUBLE: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.JSON: "JSON",
    ColumnType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
}

_TYPES_BY_NAME = {name: kind for kind, name in COLUMN_TYPES.items()}

KEY = "_sdc_key"
"""64 bits of the event_id's MD5: joins on it are several times faster than on the text. No
index: inserts stay as fast into ten million rows as into none, and the file small."""

KEY_EXPRESSION = "md5_number_lower(event_id)"

METADATA_TABLES = {
    "_sdc_rejected": (
        "record VARCHAR, reason VARCHAR, table_name VARCHAR, _sdc_rejected_at TIMESTAMPTZ,"
        ' _sdc_sequence BIGINT, _sdc_received_at TIMESTAMPTZ, writer VARCHAR, "offset" BIGINT'
    ),
    "_sdc_loads": (
        "load_id VARCHAR, batched_at TIMESTAMPTZ, run_id VARCHAR, files BIGINT,"
        " deliveries BIGINT, events BIGINT, inserted BIGINT, updated BIGINT, duplicates BIGINT,"
        " rejected BIGINT, received_from TIMESTAMPTZ, received_to TIMESTAMPTZ"
    ),
    "_sdc_watermarks": "writer VARCHAR, first_offset BIGINT, next_offset BIGINT",
    "_sdc_held": (
        'writer VARCHAR, "offset" BIGINT, signature VARCHAR, url_id VARCHAR, _sdc_sequence BIGINT,'
        " _sdc_received_at TIMESTAMPTZ"
    ),
    "_sdc_columns": (
        "table_name VARCHAR, name VARCHAR, type VARCHAR, path VARCHAR, kind VARCHAR,"
        " base_name VARCHAR, full_name VARCHAR, added_at TIMESTAMPTZ"
    ),
}


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, table: str) -> str:
    """Return the quoted name of a table in the attached file."""
    return f"{ALIAS}.{quoted(schema)}.{quoted(table)}"


def create_schema(connection: duckdb.DuckDBPyConnection, schema: str) -> None:
    """Create the schema and its metadata tables where they are missing."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {ALIAS}.{quoted(schema)}")
    for table, columns in METADATA_TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {qualified(schema, table)} ({columns})")


def evolve_data(
    connection: duckdb.DuckDBPyConnection, schema: str, columns: Mapping[str, ColumnType]
) -> dict[str, ColumnType | None]:
    """Create `data`, or add the columns that it lacks at its end, in the order given.

    Returns:
        The columns that it has now; None for a type that loading never makes.
    """
    definitions = {name: COLUMN_TYPES[kind] for name, kind in columns.items()}
    return _evolve(connection, schema, DATA, {**definitions, KEY: "UBIGINT"}, ("event_id",))


def evolve_subtable(connection: duckdb.DuckDBPyConnection, schema: str, subtable: Subtable) -> None:
    """Create a subtable, or add the columns that it lacks at its end, in the order given."""
    definitions = {name: COLUMN_TYPES[kind] for name, kind in subtable.columns.items()}
    _evolve(connection, schema, subtable.name, definitions, subtable.key)


def evolve_like(
    connection: duckdb.DuckDBPyConnection, source: str, schema: str, table: str
) -> None:
    """Create a table as the schema `source` has it, or add the columns that it lacks.

    Raises:
        duckdb.CatalogException: `source` has no such table.
    """
    found = connection.execute(
        'SELECT name, type, "notnull" FROM pragma_table_info(?)', [qualified(source, table)]
    ).fetchall()
    not_null = [name for name, _, is_not_null in found if is_not_null]
    _evolve(connection, schema, table, {name: kind for name, kind, _ in found}, not_null)


def table_columns(
    connection: duckdb.DuckDBPyConnection, schema: str, table: str
) -> dict[str, ColumnType | None]:
    """Return the columns of a table in their order; None for a type that loading never makes.

    Raises:
        duckdb.CatalogException: there is no such table.
    """
    # duckdb_columns() would go through every table and view of the file: four times slower.
    found = connection.execute(
        "SELECT name, type FROM pragma_table_info(?)", [qualified(schema, table)]
    ).fetchall()
    return {name: _TYPES_BY_NAME.get(kind) for name, kind in found}


def _evolve(
    connection: duckdb.DuckDBPyConnection,
    schema: str,
    table: str,
    definitions: Mapping[str, str],
    not_null: Collection[str],
) -> dict[str, ColumnType | None]:
    name_in_file = qualified(schema, table)
    columns = ", ".join(
        f"{quoted(name)} {kind}{' NOT NULL' if name in not_null else ''}"
        for name, kind in definitions.items()
    )
    connection.execute(f"CREATE TABLE IF NOT EXISTS {name_in_file} ({columns})")
    existing = table_columns(connection, schema, table)
    added = {name: kind for name, kind in definitions.items() if name not in existing}
    for name, kind in added.items():
        connection.execute(f"ALTER TABLE {name_in_file} ADD COLUMN {quoted(name)} {kind}")
    return existing | {name: _TYPES_BY_NAME.get(kind) for name, kind in added.items()}
