"""Tables of an integration in DuckDB: names, types and how they come to be."""

import json

import duckdb

from customerio_pipeline.loading.target import ColumnType
from customerio_pipeline.warehouse.duckdb_file import ALIAS, CATALOG

COLUMN_TYPES = {
    ColumnType.TEXT: "VARCHAR",
    ColumnType.BIGINT: "BIGINT",
    ColumnType.DOUBLE: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.JSON: "JSON",
    ColumnType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
}

KEY = "_sdc_key"
"""64 bits of the event_id's MD5: joins on it are several times faster than on the text. No
index: inserts stay as fast into ten million rows as into none, and the file small."""

KEY_EXPRESSION = "md5_number_lower(event_id)"

_METADATA_TABLES = {
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
    "_sdc_columns": (
        "name VARCHAR, type VARCHAR, path VARCHAR, kind VARCHAR, base_name VARCHAR,"
        " full_name VARCHAR, added_at TIMESTAMPTZ"
    ),
}


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, table: str) -> str:
    """Return the quoted name of a table in the attached file."""
    return f"{ALIAS}.{quoted(schema)}.{quoted(table)}"


def join_path(path: tuple[str, ...]) -> str:
    """Return a path of JSON keys as `_sdc_columns` keeps it."""
    return json.dumps(path, ensure_ascii=False)


def split_path(text: str) -> tuple[str, ...]:
    """Read `join_path` back."""
    return tuple(json.loads(text))


def create_schema(connection: duckdb.DuckDBPyConnection, schema: str) -> None:
    """Create the schema and its metadata tables where they are missing."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {ALIAS}.{quoted(schema)}")
    for table, columns in _METADATA_TABLES.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {qualified(schema, table)} ({columns})")


def evolve_data(
    connection: duckdb.DuckDBPyConnection, schema: str, columns: dict[str, ColumnType]
) -> None:
    """Create `data`, or add the columns that it lacks at its end, in the order given."""
    existing = {
        row[0]
        for row in connection.execute(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = ?"
            " AND schema_name = ? AND table_name = 'data'",
            [CATALOG, schema],
        ).fetchall()
    }
    if not existing:
        definitions = [
            f"{quoted(name)} {COLUMN_TYPES[kind]}{' NOT NULL' if name == 'event_id' else ''}"
            for name, kind in columns.items()
        ]
        definitions.append(f"{KEY} UBIGINT")
        connection.execute(f"CREATE TABLE {qualified(schema, 'data')} ({', '.join(definitions)})")
        return
    for name, kind in {**columns, KEY: None}.items():
        if name not in existing:
            type_name = COLUMN_TYPES[kind] if kind else "UBIGINT"
            connection.execute(
                f"ALTER TABLE {qualified(schema, 'data')} ADD COLUMN {quoted(name)} {type_name}"
            )
