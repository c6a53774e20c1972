"""Tables of an integration in PostgreSQL: names, types and how they come to be."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import errors, sql

from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.loading.names import unique_name
from customerio_pipeline.loading.target import (
    DATA,
    SOURCE_KEY,
    ColumnType,
    Subtable,
    TableColumns,
)
from customerio_pipeline.warehouse.postgres_connection import Connection

COLUMN_TYPES = {
    ColumnType.TEXT: "text",
    ColumnType.BIGINT: "bigint",
    ColumnType.DOUBLE: "double precision",
    ColumnType.BOOLEAN: "boolean",
    # Not jsonb, which refuses some values (numbers beyond numeric) and prints others differently.
    ColumnType.JSON: "json",
    ColumnType.TIMESTAMP: "timestamp with time zone",
}
_TYPES_BY_NAME = {
    **{name: kind for kind, name in COLUMN_TYPES.items()},
    "character varying": ColumnType.TEXT,  # without a length, as a user may have it
}

METADATA_TABLES = {
    "_sdc_rejected": (
        "record text, reason text, table_name text, _sdc_rejected_at timestamptz,"
        ' _sdc_sequence bigint, _sdc_received_at timestamptz, writer text, "offset" bigint'
    ),
    "_sdc_loads": (
        "load_id text, batched_at timestamptz, run_id text, files bigint,"
        " deliveries bigint, events bigint, inserted bigint, updated bigint, duplicates bigint,"
        " rejected bigint, received_from timestamptz, received_to timestamptz"
    ),
    "_sdc_watermarks": "writer text, first_offset bigint, next_offset bigint",
    "_sdc_columns": (
        "table_name text, name text, type text, path text, kind text, base_name text,"
        " full_name text, added_at timestamptz"
    ),
}

_LOCK_TIMEOUT = "200ms"
_LOCK_PAUSE_SECONDS = 1.0
"""While a change of `data` waits for a reader to end, new readers queue behind it. So it waits
shortly, lets them pass, and tries again."""


class Tables(NamedTuple):
    """What a schema holds now."""

    names: frozenset[str]
    """Of those tables that loading uses."""

    columns: TableColumns
    """Columns of `data` in their order."""

    subtables: Mapping[str, TableColumns]
    """Columns of tables that may be subtables."""

    generated: frozenset[str]
    """Columns of `data` that cannot be written."""

    is_unique: bool
    """Whether an index holds event_id unique, as the merge needs it."""


def qualified(schema: str, table: str) -> sql.Identifier:
    """Return the quoted name of a table."""
    return sql.Identifier(schema, table)


def look(connection: Connection, schema: str) -> Tables:
    """Read from the catalog what the schema holds; nothing when it is not there."""
    rows = connection.execute(
        "SELECT relname, attname, format_type(atttypid, atttypmod),"
        " attgenerated <> '' OR attidentity = 'a',"
        " EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisunique AND indisvalid"
        "  AND indimmediate AND indpred IS NULL AND indnkeyatts = 1 AND indkey[0] = attnum)"
        " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE nspname = %s AND (relname = ANY(%s) OR relname LIKE 'data\\_\\_%%')"
        " AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped"
        " ORDER BY relname, attnum",
        [schema, [DATA, *METADATA_TABLES]],
    ).fetchall()
    columns = [row[1:] for row in rows if row[0] == DATA]
    subtables: dict[str, dict[str, ColumnType | None]] = {}
    for table, name, kind, _, _ in rows:
        if table != DATA and table not in METADATA_TABLES:
            subtables.setdefault(str(table), {})[str(name)] = _TYPES_BY_NAME.get(str(kind))
    return Tables(
        names=frozenset(str(row[0]) for row in rows) - subtables.keys(),
        subtables=subtables,
        columns={str(name): _TYPES_BY_NAME.get(str(kind)) for name, kind, _, _ in columns},
        generated=frozenset(str(name) for name, _, generated, _ in columns if generated),
        is_unique=any(name == "event_id" and unique for name, _, _, unique in columns),
    )


def evolve(
    connection: Connection,
    schema: str,
    columns: Mapping[str, ColumnType],
    subtables: Sequence[Subtable],
    wait_seconds: float,
) -> Tables:
    """Create what the schema lacks; return what it holds then.

    In a transaction of its own, so that `data` is locked for a moment only and not while rows are
    merged. New columns are empty until then.

    Raises:
        psycopg.Error: the server refuses; ``LockNotAvailable`` when readers kept `data` busy.
        WarehouseError: event_id is not unique any more.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        tables = look(connection, schema)
        if _is_complete(tables, columns) and all(
            subtable.columns.keys() <= tables.subtables.get(subtable.name, {}).keys()
            for subtable in subtables
        ):
            return tables
        try:
            with connection.transaction():
                _create_tables(connection, schema, tables)
                if "data" not in tables.names:
                    _create_data(connection, schema, columns)
                elif "event_id" not in tables.columns:
                    raise WarehouseError(
                        f"The table {schema}.data has no column event_id: drop the table, and the"
                        " next load fills it from landing."
                    )
                else:
                    _change_data(connection, schema, columns, tables)
                for subtable in subtables:
                    _evolve_subtable(connection, schema, subtable, tables)
        except errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_PAUSE_SECONDS)


def definitions(columns: Mapping[str, ColumnType]) -> sql.Composed:
    """Return names and types for a CREATE TABLE."""
    return sql.SQL(", ").join(_definition(name, kind) for name, kind in columns.items())


def _definition(name: str, kind: ColumnType) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(COLUMN_TYPES[kind]))


def _is_complete(tables: Tables, columns: Mapping[str, ColumnType]) -> bool:
    return (
        len(tables.names) == 1 + len(METADATA_TABLES)
        and columns.keys() <= tables.columns.keys()
        and tables.is_unique
    )


def _create_tables(connection: Connection, schema: str, tables: Tables) -> None:
    [(is_there,)] = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", [schema]
    ).fetchall()
    if not is_there:  # IF NOT EXISTS needs the privilege to create even where it is
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    for table in METADATA_TABLES.keys() - tables.names:
        connection.execute(
            sql.SQL("CREATE TABLE {} ({})").format(
                qualified(schema, table), sql.SQL(METADATA_TABLES[table])
            )
        )


def _create_data(connection: Connection, schema: str, columns: Mapping[str, ColumnType]) -> None:
    connection.execute(
        sql.SQL("CREATE TABLE {} ({}, CONSTRAINT data_pkey PRIMARY KEY (event_id))").format(
            qualified(schema, "data"), definitions(columns)
        )
    )
    # Where somebody dropped `data`, all that was loaded is pending again.
    for table in METADATA_TABLES:
        connection.execute(sql.SQL("DELETE FROM {}").format(qualified(schema, table)))


def _change_data(
    connection: Connection, schema: str, columns: Mapping[str, ColumnType], tables: Tables
) -> None:
    data = qualified(schema, "data")
    changes: list[sql.Composable] = [
        sql.SQL("ADD COLUMN {}").format(_definition(name, kind))
        for name, kind in columns.items()
        if name not in tables.columns
    ]
    if not tables.is_unique:
        changes.append(_primary_key(connection, schema))
    if changes:
        connection.execute(sql.SQL(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(data, sql.SQL(", ").join(changes)))


def _evolve_subtable(
    connection: Connection, schema: str, subtable: Subtable, tables: Tables
) -> None:
    """Create a subtable with its primary key (stitch-loading 4.5), or add columns to it."""
    name = qualified(schema, subtable.name)
    existing = tables.subtables.get(subtable.name)
    if existing is None:
        key = sql.SQL(", ").join(map(sql.Identifier, subtable.key))
        connection.execute(
            sql.SQL("CREATE TABLE {} ({}, CONSTRAINT {} PRIMARY KEY ({}))").format(
                name,
                definitions(subtable.columns),
                sql.Identifier(unique_name(f"{subtable.name}_pkey", ())),
                key,
            )
        )
        # By which the elements of an event are found.
        connection.execute(
            sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(SOURCE_KEY))
        )
        return
    changes = [
        sql.SQL("ADD COLUMN {}").format(_definition(column, kind))
        for column, kind in subtable.columns.items()
        if column not in existing
    ]
    if changes:
        connection.execute(sql.SQL(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
        connection.execute(sql.SQL("ALTER TABLE {} {}").format(name, sql.SQL(", ").join(changes)))


def _primary_key(connection: Connection, schema: str) -> sql.SQL:
    """Build the index of a primary key that somebody dropped; return how to make it the key.

    The index is built under a lock that leaves readers alone.
    """
    data = qualified(schema, "data")
    try:
        connection.execute(sql.SQL("CREATE UNIQUE INDEX data_pkey ON {} (event_id)").format(data))
    except errors.UniqueViolation:
        raise WarehouseError(
            f"The table {schema}.data has lost its primary key and holds an event_id twice: delete"
            " the surplus rows, or drop the table, and the next load goes on."
        ) from None
    return sql.SQL("ADD CONSTRAINT data_pkey PRIMARY KEY USING INDEX data_pkey")
