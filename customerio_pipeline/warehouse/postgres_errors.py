"""What PostgreSQL refuses, as sentences that name the thing and the fix.

Only the server's primary message is told: details and contexts hold values of rows.
"""

import psycopg
from psycopg import errors, sql

from customerio_pipeline.errors import (
    WarehouseBusyError,
    WarehouseError,
    WarehouseUnavailableError,
)
from customerio_pipeline.warehouse.postgres_connection import Connection

_UNCHANGED = "nothing was changed, the next load goes on from there"
_GONE = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleInTransactionSessionTimeout,
)


def is_lost(connection: Connection, error: psycopg.Error) -> bool:
    """Tell whether the connection, and not a statement, is at fault."""
    return connection.closed or isinstance(error, _GONE)


def sentence(
    connection: Connection, shown: str, schema: str, error: psycopg.Error
) -> WarehouseError:
    """Return the error to raise for one of the driver's, after the transaction was rolled back."""
    reason = _message(error)
    if is_lost(connection, error):
        return WarehouseUnavailableError(
            f"The connection to the warehouse {shown} was lost: {reason}; {_UNCHANGED}."
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return WarehouseError(_missing_privilege(connection, shown, schema, reason))
    if isinstance(error, errors.LockNotAvailable):
        return WarehouseBusyError(
            f"The tables of {schema} in the warehouse {shown} are locked"
            f"{_holders(connection, schema)}; {_UNCHANGED}."
        )
    return _refusal(connection, shown, schema, error)


def _refusal(
    connection: Connection, shown: str, schema: str, error: psycopg.Error
) -> WarehouseError:
    reason = _message(error)
    match error:
        case errors.ReadOnlySqlTransaction():
            return WarehouseUnavailableError(
                f"The warehouse {shown} is read-only, as a standby is: let CUSTOMERIO_WAREHOUSE"
                " name the primary server."
            )
        case errors.QueryCanceled() if "statement timeout" in reason:
            role = sql.Identifier(connection.info.user).as_string(connection)
            return WarehouseError(
                f"A statement took longer than the warehouse {shown} allows ({reason}): run ALTER"
                f" ROLE {role} SET statement_timeout = 0; there. Nothing was changed, the next load"
                " goes on from there."
            )
        case errors.DiskFull():
            return WarehouseError(
                f"The warehouse {shown} has no room left: {reason}. Make room there; {_UNCHANGED}."
            )
    return WarehouseError(
        f"The warehouse {shown} refused a load of {schema}: {reason}; {_UNCHANGED}."
    )


def _message(error: psycopg.Error) -> str:
    text = error.diag.message_primary or (str(error).strip().splitlines() or [""])[0]
    return text.strip().rstrip(".") or type(error).__name__


def _missing_privilege(connection: Connection, shown: str, schema: str, reason: str) -> str:
    """Return what the role may not, with the statement that lets it."""
    [(role, database, is_there, may_make_schema, may_use_temporary)] = connection.execute(
        "SELECT current_user, current_database(), to_regnamespace(%s) IS NOT NULL,"
        " has_database_privilege(current_database(), 'CREATE'),"
        " has_database_privilege(current_database(), 'TEMPORARY')",
        [f'"{schema}"'],
    ).fetchall()
    grantee = sql.Identifier(str(role))
    if not is_there and not may_make_schema:
        grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(str(database)), grantee
        )
    elif not may_use_temporary:
        grant = sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(
            sql.Identifier(str(database)), grantee
        )
    elif is_there and not _may_create(connection, schema):
        grant = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(
            sql.Identifier(schema), grantee
        )
    else:
        tables = _foreign_tables(connection, schema)
        grant = sql.SQL("; ").join(
            sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(schema, table), grantee)
            for table in tables
        )
    statement = grant.as_string(connection)
    fix = f": run {statement}; there" if statement else ""
    return f"The role {role} may not load {schema} into the warehouse {shown} ({reason}){fix}."


def _may_create(connection: Connection, schema: str) -> bool:
    [(may_create,)] = connection.execute(
        "SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')"
        " FROM pg_namespace WHERE nspname = %s",
        [schema],
    ).fetchall()
    return bool(may_create)


def _foreign_tables(connection: Connection, schema: str) -> list[str]:
    """Return the tables of `schema` that loading uses and the role does not own."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s)::oid"
        " AND relkind = 'r' AND (relname = 'data' OR relname LIKE '\\_sdc\\_%%')"
        " AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname",
        [f'"{schema}"'],
    ).fetchall()
    return [str(name) for (name,) in rows]


def _holders(connection: Connection, schema: str) -> str:
    """Name the sessions that use the schema's tables, as far as the role may see them."""
    rows = connection.execute(
        "SELECT DISTINCT pg_locks.pid, usename FROM pg_locks"
        " JOIN pg_class ON pg_class.oid = relation"
        " LEFT JOIN pg_stat_activity ON pg_stat_activity.pid = pg_locks.pid"
        " WHERE relnamespace = to_regnamespace(%s)::oid AND granted"
        " AND pg_locks.pid <> pg_backend_pid() ORDER BY 1 LIMIT 3",
        [f'"{schema}"'],
    ).fetchall()
    if not rows:
        return ""
    named = ", ".join(f"{pid} (user {user})" if user else str(pid) for pid, user in rows)
    return f" by session {named}, which SELECT pg_terminate_backend(…) ends"
