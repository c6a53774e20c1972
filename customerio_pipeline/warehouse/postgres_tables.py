"""Tables of an integration in PostgreSQL: names, types and how they come to be."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import errors, sql

from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.loading.target import DATA, SOURCE_KEY, Batch, ColumnType
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
    "_sdc_held": (
        'writer text, "offset" bigint, signature text, url_id text, _sdc_sequence bigint,'
        " _sdc_received_at timestamptz"
    ),
    "_sdc_columns": (
        "table_name text, name text, type text, path text, kind text, base_name text,"
        " full_name text, added_at timestamptz"
    ),
}

_LOCK_MILLISECONDS = 200
_LOCK_PAUSE_SECONDS = 1.0
"""While a change of `data` waits for a reader to end, new readers queue behind it. So it waits
shortly, lets them pass, and tries again."""


class Table(NamedTuple):
    """What a table is like now."""

    columns: dict[str, ColumnType | None]
    """In their order; None for a type that loading never makes."""

    generated: set[str]
    """Columns that cannot be written."""

    unique: set[frozenset[str]]
    """Columns that an index holds unique together, so that a merge can rely on it."""


Tables = Mapping[str, Table]
"""The tables of a schema by name."""


class Wanted(NamedTuple):
    """A table that a batch needs."""

    name: str
    columns: Mapping[str, ColumnType]
    key: tuple[str, ...]


def wanted_tables(batch: Batch) -> list[Wanted]:
    """Return `data` and the subtables that a batch has rows for."""
    return [
        Wanted(DATA, batch.columns, ("event_id",)),
        *(Wanted(table.name, table.columns, table.key) for table in batch.subtables),
    ]


def qualified(schema: str, table: str) -> sql.Identifier:
    """Return the quoted name of a table."""
    return sql.Identifier(schema, table)


def look(connection: Connection, schema: str) -> Tables:
    """Read from the catalog what the schema holds; nothing when it is not there."""
    tables: dict[str, Table] = {}
    for table, name, kind, is_generated in connection.execute(
        "SELECT relname, attname, format_type(atttypid, atttypmod),"
        " attgenerated <> '' OR attidentity = 'a'"
        " FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = to_regnamespace(%s)::oid AND relkind = 'r'"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        [_quoted(schema)],
    ):
        found = tables.setdefault(str(table), Table({}, set(), set()))
        found.columns[str(name)] = _TYPES_BY_NAME.get(str(kind))
        if is_generated:
            found.generated.add(str(name))
    for table, names in connection.execute(
        "SELECT relname, ARRAY(SELECT attname::text FROM pg_attribute"
        "  WHERE attrelid = indrelid AND attnum = ANY(indkey[0:indnkeyatts - 1]))"
        " FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " WHERE relnamespace = to_regnamespace(%s)::oid AND relkind = 'r' AND indisunique"
        # Neither half-made, nor deferred, nor of some rows only, nor of expressions.
        " AND indisvalid AND indimmediate AND indpred IS NULL AND indexprs IS NULL",
        [_quoted(schema)],
    ):
        tables[str(table)].unique.add(frozenset(names))  # type: ignore[call-overload]  # an array
    return tables


def holds(tables: Tables, wanted: Sequence[Wanted]) -> bool:
    """Tell whether nothing is to be created."""
    return METADATA_TABLES.keys() <= tables.keys() and all(
        _is_complete(table, tables.get(table.name)) for table in wanted
    )


def evolve(
    connection: Connection, schema: str, wanted: Sequence[Wanted], wait_seconds: float
) -> Tables:
    """Create what the schema lacks; return what it holds then.

    In a transaction of its own, so that a table is locked for a moment only and not while rows are
    merged. New columns are empty until then.

    Raises:
        psycopg.Error: the server refuses; ``LockNotAvailable`` when readers kept a table busy.
        WarehouseError: a table is not what the merge needs and cannot be made so.
    """
    deadline = time.monotonic() + wait_seconds
    patience = _LOCK_MILLISECONDS
    while True:
        tables = look(connection, schema)
        if holds(tables, wanted):
            return tables
        try:
            with connection.transaction():
                _create_schema(connection, schema)
                for name in METADATA_TABLES.keys() - tables.keys():
                    _create(connection, schema, name, sql.SQL(METADATA_TABLES[name]))
                for table in wanted:
                    _evolve_table(connection, schema, table, tables.get(table.name), patience)
                if DATA not in tables:
                    _forget_loads(connection, schema, tables)
        except errors.LockNotAvailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOCK_PAUSE_SECONDS)
            patience = _LOCK_MILLISECONDS + _autovacuum_milliseconds(connection, schema, wanted)


def _autovacuum_milliseconds(connection: Connection, schema: str, wanted: Sequence[Wanted]) -> int:
    """Return how long to wait for autovacuum, which gives way then; 0 where others hold a table."""
    [(is_autovacuum, milliseconds)] = connection.execute(
        # The server's own processes have no user.
        "SELECT bool_and(usesysid IS NULL),"
        " (SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout')"
        " FROM pg_locks JOIN pg_class ON pg_class.oid = relation"
        " JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid"
        " WHERE relnamespace = to_regnamespace(%s)::oid AND relname = ANY(%s) AND granted",
        [_quoted(schema), [table.name for table in wanted]],
    ).fetchall()
    return int(str(milliseconds)) if is_autovacuum else 0


def subtable_names(connection: Connection, schema: str, tables: Tables) -> list[str]:
    """Return the tables of arrays that the schema has."""
    rows = connection.execute(
        sql.SQL("SELECT DISTINCT table_name FROM {} WHERE table_name <> %s").format(
            qualified(schema, "_sdc_columns")
        ),
        [DATA],
    ).fetchall()
    return sorted(str(name) for (name,) in rows if name in tables)


def definitions(columns: Mapping[str, ColumnType]) -> sql.Composed:
    """Return names and types for a CREATE TABLE."""
    return sql.SQL(", ").join(_definition(name, kind) for name, kind in columns.items())


def _definition(name: str, kind: ColumnType) -> sql.Composed:
    return sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(COLUMN_TYPES[kind]))


def _quoted(name: str) -> str:
    return f'"{name}"'


def _is_complete(wanted: Wanted, table: Table | None) -> bool:
    return (
        table is not None
        and wanted.columns.keys() <= table.columns.keys()
        and frozenset(wanted.key) in table.unique
    )


def _create_schema(connection: Connection, schema: str) -> None:
    [(is_missing,)] = connection.execute(
        "SELECT to_regnamespace(%s) IS NULL", [_quoted(schema)]
    ).fetchall()
    if is_missing:  # IF NOT EXISTS needs the privilege to create even where it is
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))


def _create(connection: Connection, schema: str, name: str, columns: sql.Composable) -> None:
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(qualified(schema, name), columns))


def _evolve_table(
    connection: Connection, schema: str, wanted: Wanted, table: Table | None, patience: int
) -> None:
    if table is None:
        key = sql.SQL(", ").join(map(sql.Identifier, wanted.key))
        columns = sql.SQL("{}, CONSTRAINT {} PRIMARY KEY ({})").format(
            definitions(wanted.columns), sql.Identifier(_key_name(wanted.name)), key
        )
        _create(connection, schema, wanted.name, columns)
        if wanted.name == DATA:
            # A thousandth of the table's size: rows are found by the time of their receipt.
            index: sql.Composable = sql.SQL(
                "USING brin (_sdc_received_at) WITH (autosummarize = on)"
            )
        else:
            # The primary key, in the order that Stitch gives it, does not find an event's elements.
            index = sql.SQL("({})").format(sql.Identifier(SOURCE_KEY))
        connection.execute(
            sql.SQL("CREATE INDEX ON {} {}").format(qualified(schema, wanted.name), index)
        )
        return
    if lacking := [name for name in wanted.key if name not in table.columns]:
        raise WarehouseError(
            f"The table {schema}.{wanted.name} has no column {lacking[0]} any more: drop the table"
            f" {schema}.{DATA}, and the next load fills everything from landing."
        )
    changes: list[sql.Composable] = [
        sql.SQL("ADD COLUMN {}").format(_definition(name, kind))
        for name, kind in wanted.columns.items()
        if name not in table.columns
    ]
    if frozenset(wanted.key) not in table.unique:
        changes.append(_primary_key(connection, schema, wanted))
    if changes:
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(patience))
        connection.execute(
            sql.SQL("ALTER TABLE {} {}").format(
                qualified(schema, wanted.name), sql.SQL(", ").join(changes)
            )
        )


def _primary_key(connection: Connection, schema: str, wanted: Wanted) -> sql.Composable:
    """Build the index of a primary key that somebody dropped; return how to make it the key.

    The index is built under a lock that leaves readers alone.
    """
    index = sql.Identifier(_key_name(wanted.name))
    key = sql.SQL(", ").join(map(sql.Identifier, wanted.key))
    try:
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX {} ON {} ({})").format(
                index, qualified(schema, wanted.name), key
            )
        )
    except errors.UniqueViolation:
        raise WarehouseError(
            f"The table {schema}.{wanted.name} lost its primary key and holds the same"
            f" {', '.join(wanted.key)} twice: delete the surplus rows, or drop {schema}.{DATA} to"
            " have everything filled from landing."
        ) from None
    return sql.SQL("ADD CONSTRAINT {0} PRIMARY KEY USING INDEX {0}").format(index)


def _key_name(table: str) -> str:
    """Return Stitch's name of a primary key; the server cuts the last letter where it must."""
    return f"{table}_pkey"


def _forget_loads(connection: Connection, schema: str, tables: Tables) -> None:
    """Make all that was loaded pending again where somebody dropped `data`.

    The mapping stays, and with it the names of the columns.
    """
    emptied = {"_sdc_watermarks", "_sdc_held", "_sdc_rejected", "_sdc_loads"} & tables.keys()
    for table in [*sorted(emptied), *subtable_names(connection, schema, tables)]:
        connection.execute(sql.SQL("DELETE FROM {}").format(qualified(schema, table)))
