"""Sessions of others in a warehouse's PostgreSQL, and loads beside them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from customerio_pipeline.loading.target import Target
from tests.landed_bodies import SCHEMA, Warehouse

PATIENCE_SECONDS = 20.0


def run(url: str, sql: str) -> list[tuple[object, ...]]:
    """Run statements as somebody else; ``{s}`` stands for the schema."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.replace("{s}", SCHEMA).encode())
        return cursor.fetchall() if cursor.description else []


def body(number: int, **values: object) -> bytes:
    """Return an event."""
    return json.dumps({"event_id": f"e{number}", "n": number, **values}).encode()


def wait_until(is_so: Callable[[], object]) -> None:
    """Return when it is so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_lock(url: str) -> None:
    """Return when a session of ours waits for a lock."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    wait_until(lambda: run(url, waiting))


@contextmanager
def holding(url: str, sql: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Run statements in a transaction that is open for the time of the block; ``{s}`` as above."""
    connection = psycopg.connect(url)
    try:
        connection.execute(sql.replace("{s}", SCHEMA).encode())
        yield connection
    finally:
        connection.close()


def load_with(warehouse: Warehouse, target: Target) -> None:
    """Load with another target than the warehouse's own."""
    own, warehouse.target = warehouse.target, target
    try:
        warehouse.load()
    finally:
        warehouse.target = own
