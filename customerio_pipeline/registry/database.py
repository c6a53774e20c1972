"""Opening the registry's database: SQLite or PostgreSQL, its tables made where they are missing."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from customerio_pipeline.errors import RegistryUnavailableError
from customerio_pipeline.registry.tables import SCHEMA_VERSION, UPGRADES, metadata, registry_state

# How long a statement waits for another process's transaction, and a connection for its server.
_WAIT_SECONDS = 5
_OWNER_ONLY = 0o600

# Any number that no other program is likely to use: PostgreSQL's advisory lock for making tables.
_POSTGRES_LOCK = 6_021_023

# A file made here is closed again, which drops every lock that this process holds on it by POSIX's
# rules, so no other thread may open the same registry in that moment.
_opening = threading.Lock()


class Database:
    """Connections to the registry; errors of the driver become `RegistryUnavailableError`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> "Database":
        """Connect, and make or check the tables.

        Raises:
            RegistryUnavailableError: with one sentence that holds no password.
        """
        database = cls(_engine(url))
        try:
            with database._translated(), _opening:
                _prepare_file(database._engine)
                _prepare_tables(database)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection for reading."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[sa.Connection]:
        """Yield a connection whose changes are committed together, or not at all."""
        writing = self._engine.execution_options(registry_writes=True)
        with self._translated(), writing.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sa.exc.TimeoutError, OSError) as error:
            # `from None`: a driver's error may carry the address it was given.
            raise RegistryUnavailableError(
                f"The registry {_shown(self._engine.url)} cannot be used: "
                f"{_reason(error, self._engine.url)}."
            ) from None


def _engine(url: str) -> sa.Engine:
    parsed: sa.URL | None
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    # An @ in a password that is not written as %40 would end up in the host and be shown.
    if parsed is None or "@" in (parsed.host or ""):
        raise RegistryUnavailableError(
            "The registry's URL is malformed: it must be sqlite:///path or "
            "postgresql://user:password@host:port/database, special characters percent-encoded."
        )
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        return _postgres_engine(parsed)
    raise RegistryUnavailableError("The registry must be sqlite:///path or postgresql://….")


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if url.database in (None, "", ":memory:"):
        raise RegistryUnavailableError(
            "The registry must be a file that all processes share: sqlite:///path."
        )
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": _WAIT_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own idea of when a transaction begins is switched off.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        _use_write_ahead_log(connection)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that begins by reading could not wait for another's changes.
        writes = connection.get_execution_options().get("registry_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: sa.URL) -> sa.Engine:
    # A server that vanished is noticed in seconds, not in the kernel's quarter of an hour.
    patience = {
        "connect_timeout": str(_WAIT_SECONDS),
        "tcp_user_timeout": str(_WAIT_SECONDS * 1000),
        "application_name": "customerio-pipeline registry",
    }
    url = url.set(drivername="postgresql+psycopg").update_query_dict(patience | dict(url.query))
    return sa.create_engine(url, hide_parameters=True, pool_size=2, pool_pre_ping=True)


def _prepare_file(engine: sa.Engine) -> None:
    if engine.dialect.name != "sqlite":
        return
    path = Path(str(engine.url.database))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=_OWNER_ONLY)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # Readers and the one writer do not block each other. The mode is kept in the file; while
    # another process switches it too, SQLite refuses at once instead of waiting.
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _prepare_tables(database: Database) -> None:
    version = _stored_version(database)
    if version is None or version < SCHEMA_VERSION:
        with database.changing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRES_LOCK)))
            metadata.create_all(connection)
            _upgrade(connection, connection.scalar(sa.select(registry_state.c.schema_version)))
        version = _stored_version(database)
    if version != SCHEMA_VERSION:
        raise RegistryUnavailableError(
            f"The registry's tables have version {version} and this release knows version "
            f"{SCHEMA_VERSION}: upgrade customerio-pipeline."
        )


def _upgrade(connection: sa.Connection, version: int | None) -> None:
    """Bring tables of `version` up to date; None: they were made just now."""
    if version is None:
        connection.execute(
            registry_state.insert().values(id=1, schema_version=SCHEMA_VERSION, generation=0)
        )
        return
    for newer in range(version + 1, SCHEMA_VERSION + 1):
        for statement in UPGRADES[newer]:
            connection.execute(sa.text(statement))
        connection.execute(registry_state.update().values(schema_version=newer))


def _stored_version(database: Database) -> int | None:
    with database.reading() as connection:
        if not sa.inspect(connection).has_table(registry_state.name):
            return None
        return connection.scalar(sa.select(registry_state.c.schema_version))


def _shown(url: sa.URL) -> str:
    """Return the address without user, password and options."""
    return sa.URL.create(
        url.get_backend_name(), host=url.host, port=url.port, database=url.database
    ).render_as_string()


def _reason(error: Exception, url: sa.URL) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    lines = str(original).strip().splitlines()
    reason = lines[0].strip().rstrip(".") if lines else type(original).__name__
    for secret in (url.password, url.query.get("password")):
        if secret:
            reason = reason.replace(str(secret), "***")
    return reason
