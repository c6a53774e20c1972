"""PostgreSQL as the warehouse: a schema for each integration in one database."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psycopg
from psycopg import errors, sql

from customerio_pipeline.errors import WarehouseBusyError
from customerio_pipeline.loading.target import (
    DATA,
    Batch,
    MergeCounts,
    QueryResult,
    Removal,
    RemovalCounts,
    SchemaState,
)
from customerio_pipeline.warehouse import postgres_rebuild
from customerio_pipeline.warehouse.postgres_connection import Connection, PostgresServer
from customerio_pipeline.warehouse.postgres_errors import is_lost, sentence
from customerio_pipeline.warehouse.postgres_merge import PostgresMerge
from customerio_pipeline.warehouse.postgres_query import run_query
from customerio_pipeline.warehouse.postgres_removal import remove
from customerio_pipeline.warehouse.postgres_tables import (
    Tables,
    evolve,
    holds,
    look,
    qualified,
    wanted_tables,
)
from customerio_pipeline.warehouse.postgres_views import PostgresViews
from customerio_pipeline.warehouse.table_rows import schema_state

_WATERMARK = ("writer", "first_offset", "next_offset")
_HELD = ("writer", "offset")
_MAPPING = ("name", "type", "path", "kind", "base_name", "table_name")


class PostgresTarget:
    """A `Target` in a PostgreSQL database, over one connection that is made when it is needed.

    A connection that is lost fails the load under way; the next one connects again.
    """

    def __init__(self, url: str, *, wait_seconds: float) -> None:
        self._server = PostgresServer(url)
        self._wait_seconds = wait_seconds
        self._session: _Session | None = None
        self._views = PostgresViews()

    @contextmanager
    def exclusive(self, schema: str) -> Iterator[None]:
        """Hold the load lock of `schema`: an advisory lock, freed when the connection ends."""
        key = _lock_key(schema)
        session = self._lock(schema, key)
        try:
            yield
        finally:
            # Without the connection there is no lock any more.
            with suppress(psycopg.OperationalError):
                session.connection.execute("SELECT pg_advisory_unlock(%s)", [key])

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when it or its table `data` is not there yet."""
        with self._told(schema) as session:
            connection = session.connection
            # One snapshot: a load may commit in between.
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                tables = look(connection, schema)
                if not {"_sdc_watermarks", "_sdc_columns"} <= tables.keys():
                    return SchemaState({}, (), {})
                watermarks = _rows(connection, schema, "_sdc_watermarks", _WATERMARK)
                columns = _rows(connection, schema, "_sdc_columns", _MAPPING)
                held: list[tuple[object, ...]] = []
                if "_sdc_held" in tables:
                    held = _rows(connection, schema, "_sdc_held", _HELD)
            session.seen[schema] = tables
        return schema_state(
            # Where somebody dropped `data`, everything is to be loaded again.
            watermarks if DATA in tables else (),  # type: ignore[arg-type]  # as declared
            columns,  # type: ignore[arg-type]  # as declared
            {name: table.columns for name, table in tables.items()},
            held if DATA in tables else (),  # type: ignore[arg-type]  # as declared
        )

    def merge(self, schema: str, batch: Batch) -> MergeCounts:
        """Apply the batch in one transaction (design C4)."""
        wanted = wanted_tables(batch)
        with self._told(schema) as session:
            seen = session.seen.pop(schema, {})
            if holds(seen, wanted):
                # What somebody did to the tables since then shows in the statements.
                with suppress(psycopg.ProgrammingError):
                    return session.merge.merge(schema, batch, seen, self._views)
            tables = evolve(session.connection, schema, wanted, self._wait_seconds)
            return session.merge.merge(schema, batch, tables, self._views)

    def remove(self, schema: str, removal: Removal) -> RemovalCounts:
        """Remove rows in one transaction (`postgres_removal`)."""
        with self._told(schema) as session:
            session.merge.forget(schema)
            return remove(session.connection, schema, removal)

    def prepare_rebuild(self, schema: str, beside: str) -> None:
        """Make `beside` anew, without rows (`postgres_rebuild`)."""
        with self._told(beside) as session:
            postgres_rebuild.prepare(session.connection, schema, beside, self._wait_seconds)

    def finish_rebuild(self, schema: str, beside: str) -> None:
        """Let what `beside` holds take the place of what `schema` holds (`postgres_rebuild`)."""
        with self._told(schema) as session:
            session.merge.forget(schema)
            postgres_rebuild.finish(
                session.connection, schema, beside, self._views, self._wait_seconds
            )

    def drop(self, schema: str) -> None:
        """Drop a schema and all that is in it, if it is there."""
        with self._told(schema) as session:
            postgres_rebuild.drop(session.connection, schema)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement on a connection of its own."""
        return run_query(self._server, sql, parameters)

    @property
    def copied_at(self) -> None:
        """No copy is ever read: readers and loads do not get in each other's way."""

    def publish(self, *, force: bool = False) -> None:
        """Do nothing: what is committed can be read."""

    def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    def _connected(self) -> "_Session":
        if self._session is None or self._session.connection.closed:
            self._session = _Session(self._server.connect(), self._wait_seconds)
        return self._session

    @contextmanager
    def _told(self, schema: str) -> Iterator["_Session"]:
        """Yield the session; turn the driver's errors into sentences."""
        session = self._connected()
        try:
            yield session
        except psycopg.Error as error:
            if is_lost(session.connection, error):
                session.connection.close()
            # `from None`: the driver's error may hold values of rows.
            raise sentence(session.connection, self._server.shown, schema, error) from None

    def _lock(self, schema: str, key: int) -> "_Session":
        """Lock `schema` and return the session that holds the lock."""
        is_used = self._session is not None
        with self._told(schema) as session:
            try:
                session.connection.execute("SELECT pg_advisory_lock(%s)", [key])
            except errors.LockNotAvailable:
                raise WarehouseBusyError(
                    f"Another load of {schema} did not end within {self._wait_seconds:g} s;"
                    " the next load goes on from there."
                ) from None
            except psycopg.OperationalError as error:
                if not (is_used and is_lost(session.connection, error)):
                    raise
            else:
                return session
        # It was lost while nothing was loaded: that is no reason to fail.
        self.close()
        return self._lock(schema, key)


class _Session:
    """A connection and what goes with it."""

    def __init__(self, connection: Connection, wait_seconds: float) -> None:
        # Zero would mean to wait for ever.
        milliseconds = max(1, round(wait_seconds * 1000))
        connection.execute(sql.SQL("SET lock_timeout = {}").format(milliseconds))
        # Whatever the role's defaults are. (BEGIN READ WRITE would fail even a look at a standby.)
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        connection.execute("SET default_transaction_read_only = off")
        self.connection = connection
        self.merge = PostgresMerge(connection)
        self.seen: dict[str, Tables] = {}
        """The tables of a schema as its state was read, for the merge that follows."""


def _rows(
    connection: Connection, schema: str, table: str, columns: tuple[str, ...]
) -> list[tuple[object, ...]]:
    return connection.execute(
        sql.SQL("SELECT {} FROM {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), qualified(schema, table)
        )
    ).fetchall()


def _lock_key(schema: str) -> int:
    digest = hashlib.sha256(f"customerio-pipeline load {schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
