"""Keeping the views for analysts in PostgreSQL, beside the table."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import errors

from customerio_pipeline.loading.target import ColumnType
from customerio_pipeline.warehouse.postgres_connection import Connection
from customerio_pipeline.warehouse.view_columns import VIEWS
from customerio_pipeline.warehouse.view_expressions import POSTGRES, quoted
from customerio_pipeline.warehouse.views import ViewDefinition, version_of, view_definitions

_LOCK_TIMEOUT = "200ms"
"""Others queue behind us while we wait for one who reads the view."""

_log = logging.getLogger(__name__)


class PostgresViews:
    """Makes the views anew when they are not as they should be; for all schemas of a database."""

    def __init__(self) -> None:
        self._left: set[tuple[str, str, str | None]] = set()

    def keep(
        self, connection: Connection, schema: str, columns: Mapping[str, ColumnType | None]
    ) -> None:
        """Bring the views of `schema` up to date, in the transaction that changed `data`.

        To be called last in it: a replaced view is locked until the end. The transaction does not
        fail: a view that cannot be replaced is left as it is, and that is logged once.
        """
        found = _relations(connection, schema)
        table = f"{quoted(schema)}.data"
        for view in view_definitions(columns, POSTGRES, table):
            version = version_of(view.comment)
            is_foreign = view.name in found and version_of(found[view.name]) is None
            attempt = (schema, view.name, None if is_foreign else version)
            if version_of(found.get(view.name)) == version or attempt in self._left:
                continue
            problem: str | None = "was made by somebody else; rename it, and a load creates ours"
            if not is_foreign:
                problem = _renew(connection, f"{quoted(schema)}.{quoted(view.name)}", view)
            if problem:
                self._left.add(attempt)
                _log.warning("%s.%s is left as it is: it %s.", schema, view.name, problem)


def _renew(connection: Connection, name: str, view: ViewDefinition) -> str | None:
    """Create or replace a view; return why that is impossible."""
    try:
        try:
            with _attempt(connection):
                _execute(connection, f"CREATE OR REPLACE VIEW {name} AS {view.select}")
                _comment(connection, name, view)
        except errors.InvalidTableDefinition:
            # Its columns changed otherwise than by new ones at the end.
            with _attempt(connection):
                _recreate(connection, name, view)
    except errors.LockNotAvailable:
        _log.info("%s is being read; the next load renews it.", name)
    except errors.DependentObjectsStillExist:
        return "has other columns now, but other views depend on it; drop them to have it renewed"
    except psycopg.Error as error:
        if connection.closed:
            raise
        return f"could not be made: {error.diag.message_primary or error}"
    return None


@contextmanager
def _attempt(connection: Connection) -> Iterator[None]:
    """Run a block that may fail without the transaction failing, and that waits for no lock."""
    with connection.transaction():
        [(before,)] = _execute(connection, "SHOW lock_timeout")
        _execute(connection, f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        yield
        _execute(connection, f"SET LOCAL lock_timeout = '{before}'")


def _recreate(connection: Connection, name: str, view: ViewDefinition) -> None:
    """Drop a view and create it, with the privileges that it had."""
    before = _privileges(connection, name)
    _execute(connection, f"DROP VIEW {name}")
    _execute(connection, f"CREATE VIEW {name} AS {view.select}")
    for grantee, _, _ in _privileges(connection, name):
        _execute(connection, f"REVOKE ALL ON {name} FROM {grantee}")
    for grantee, privilege, option in before:
        _execute(connection, f"GRANT {privilege} ON {name} TO {grantee}{option}")
    _comment(connection, name, view)


def _comment(connection: Connection, name: str, view: ViewDefinition) -> None:
    _execute(connection, f"COMMENT ON VIEW {name} IS '{view.comment}'")


def _privileges(connection: Connection, name: str) -> list[tuple[object, ...]]:
    """Return grantee, privilege and grant option of all but the owner."""
    return _execute(
        connection,
        "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,"
        " privilege_type, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END"
        " FROM pg_class, aclexplode(relacl)"
        f" WHERE pg_class.oid = '{name}'::regclass AND grantee <> relowner",
    )


def _relations(connection: Connection, schema: str) -> dict[str, str | None]:
    """Return what has the name of one of the views, with the comment if it is a view."""
    rows = connection.execute(
        "SELECT relname, CASE relkind WHEN 'v' THEN obj_description(pg_class.oid, 'pg_class') END"
        " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace"
        " WHERE nspname = %s AND relname = ANY(%s)",
        [schema, list(VIEWS)],
    ).fetchall()
    return {str(name): None if comment is None else str(comment) for name, comment in rows}


def _execute(connection: Connection, statement: str) -> list[tuple[object, ...]]:
    cursor = connection.execute(statement.encode())
    return cursor.fetchall() if cursor.description else []
