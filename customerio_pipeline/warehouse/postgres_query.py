"""One read-only statement on PostgreSQL, and errors that its author understands."""

import re
from collections.abc import Sequence
from contextlib import closing

import psycopg
from psycopg.pq import ExecStatus
from psycopg.types.string import TextLoader

from customerio_pipeline.errors import QueryError
from customerio_pipeline.loading.target import QueryResult
from customerio_pipeline.warehouse.postgres_connection import Connection, PostgresServer

_WORD = re.compile(r'"[^"]*"|[\w.]+|\S')


def run_query(server: PostgresServer, sql: str, parameters: Sequence[object]) -> QueryResult:
    """Run one statement; ``$1`` and so on stand for the parameters.

    On a connection of its own: a statement may change its session's settings.

    Raises:
        QueryError: the statement cannot be run.
        WarehouseUnavailableError: the server cannot be reached.
    """
    with closing(server.connect()) as connection:
        # As text, like everywhere else: to Python's types and back some of it would change.
        for name in ("json", "jsonb"):
            connection.adapters.register_loader(name, TextLoader)
        try:
            # The first query of a transaction fixes that it is read-only: no function can undo it.
            connection.execute("BEGIN READ ONLY; SELECT 1")
            _check(connection, sql)
            with psycopg.RawCursor(connection) as cursor:
                cursor.execute(sql.encode(), parameters)
                columns = [column.name for column in cursor.description or ()]
                return QueryResult(columns, cursor.fetchall())
        except psycopg.Error as error:
            raise QueryError(f"The query failed: {_explanation(error, sql)}.") from None


def _check(connection: Connection, sql: str) -> None:
    """Refuse what is not one statement that returns rows, without running it."""
    encoded = sql.encode()
    if b"\0" in encoded:
        raise QueryError("The query failed: it holds a NUL character.")
    prepared = connection.pgconn.prepare(b"", encoded)
    if prepared.status != ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(prepared, encoding="utf-8")
    if not connection.pgconn.describe_prepared(b"").nfields:
        raise QueryError("The query has no result: give one read-only statement, such as SELECT.")


def _explanation(error: psycopg.Error, sql: str) -> str:
    """Return PostgreSQL's message on one line, with the place in the statement at its end."""
    position = error.diag.statement_position
    if isinstance(error, psycopg.errors.SyntaxError) and not position:
        return "give one statement, not several"
    message = error.diag.message_primary or str(error)
    sentence = ". ".join(
        " ".join(part.split()).rstrip(".") for part in (message, error.diag.message_hint) if part
    )
    if not position:
        return sentence
    at = int(position) - 1
    word = _WORD.match(sql, at)
    number = sql.count("\n", 0, at) + 1
    return f"{sentence} (line {number}{f', at {word[0]}' if word else ', at the end'})"
