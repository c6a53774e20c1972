"""Both warehouses with the views for analysts: bodies in, SQL out, and a user who meddles."""

from contextlib import closing
from pathlib import Path
from typing import Protocol

import duckdb
import psycopg

from customerio_pipeline.warehouse.postgres_target import PostgresTarget
from tests.landed_bodies import SCHEMA, Warehouse


class House(Protocol):
    """A warehouse of a test's own; ``{s}`` in its SQL stands for the schema."""

    def load(self, *bodies: bytes) -> None:
        """Load bodies, and bring the views up to date."""

    def query(self, sql: str) -> tuple[list[str], list[tuple[object, ...]]]:
        """Return the columns and rows of a query."""

    def meddle(self, sql: str) -> None:
        """Execute what a user executes."""

    def close(self) -> None:
        """Release what the house holds."""


class DuckDBHouse:
    """DuckDB, read and meddled with by a client of its own that opens the file."""

    def __init__(self, folder: Path) -> None:
        self.warehouse = Warehouse(folder)

    def load(self, *bodies: bytes) -> None:
        """Load bodies, and bring the views up to date."""
        self.warehouse.load_bodies(*bodies)

    def query(self, sql: str) -> tuple[list[str], list[tuple[object, ...]]]:
        """Return the columns and rows of a query."""
        with closing(duckdb.connect(self.warehouse.file, read_only=True)) as connection:
            cursor = connection.execute(sql.format(s=SCHEMA))
            return [column[0] for column in cursor.description], cursor.fetchall()

    def meddle(self, sql: str) -> None:
        """Execute what a user executes."""
        with closing(duckdb.connect(self.warehouse.file)) as connection:
            connection.execute(sql.format(s=SCHEMA))

    def close(self) -> None:
        """Close the engine."""
        self.warehouse.target.close()


class PostgresHouse:
    """PostgreSQL, read and meddled with over a connection of its own."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.warehouse = Warehouse(folder)
        self.warehouse.target.close()
        self.warehouse.target = PostgresTarget(url, wait_seconds=20)
        self.connection: psycopg.Connection[tuple[object, ...]] = psycopg.connect(
            url, autocommit=True
        )

    def load(self, *bodies: bytes) -> None:
        """Load bodies, and bring the views up to date."""
        self.warehouse.load_bodies(*bodies)

    def query(self, sql: str) -> tuple[list[str], list[tuple[object, ...]]]:
        """Return the columns and rows of a query."""
        cursor = self.connection.execute(sql.format(s=SCHEMA).encode())
        assert cursor.description is not None
        return [column.name for column in cursor.description], cursor.fetchall()

    def meddle(self, sql: str) -> None:
        """Execute what a user executes."""
        self.connection.execute(sql.format(s=SCHEMA).encode())

    def close(self) -> None:
        """End both connections."""
        self.warehouse.target.close()
        self.connection.close()
