"""Makes a table of millions of rows out of one of thousands, in the warehouse itself.

A process of its own, ``python -m benchmarks.big_table``. The rows are those that loading further
copies of the pool (`benchmarks.event_pool`) would leave: other ids, later times, the next offsets.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import psycopg

from benchmarks.event_pool import (
    BASE64,
    CROCKFORD,
    PERIOD_MILLISECONDS,
    ULID_PREFIX,
    ULID_TIME,
    moved_prefix,
    permuted,
)
from customerio_pipeline.warehouse.duckdb_tables import KEY, KEY_EXPRESSION, quoted

_COPIES_A_TRANSACTION = 10
_ULIDS = ("event_id", "data__journey_id", "data__trigger_event_id")
_NANOSECONDS = PERIOD_MILLISECONDS * 10**6

Execute = Callable[[str], Sequence[Sequence[Any]]]


def multiply(execute: Execute, schema: str, deliveries: int, copies: int) -> int:
    """Add copies to the table, which holds one of so many deliveries; return its rows."""
    table = f"{quoted(schema)}.data"
    execute(f"CREATE TEMP TABLE base AS SELECT * FROM {table}")
    columns = [
        name
        for (name,) in execute(
            "SELECT column_name FROM information_schema.columns"
            f" WHERE table_schema = '{schema}' AND table_name = 'data' ORDER BY ordinal_position"
        )
    ]
    prefixes = {
        name: [prefix for (prefix,) in execute(_prefixes(name)) if prefix]
        for name in _ULIDS
        if name in columns
    }
    names = ", ".join(map(quoted, columns))
    for first in range(1, copies + 1, _COPIES_A_TRANSACTION):
        execute("BEGIN")
        for copy in range(first, min(first + _COPIES_A_TRANSACTION, copies + 1)):
            selected = ", ".join(
                f"{_moved(name, copy, deliveries, prefixes)} AS {quoted(name)}" for name in columns
            )
            source = f"(SELECT {selected} FROM base) AS moved"
            outer = ", ".join(KEY_EXPRESSION if name == KEY else quoted(name) for name in columns)
            execute(f"INSERT INTO {table} ({names}) SELECT {outer} FROM {source}")
        execute("COMMIT")
    rows: int = execute(f"SELECT count(*) FROM {table}")[0][0]
    return rows


def _prefixes(name: str) -> str:
    return f"SELECT DISTINCT substr({quoted(name)}, 1, {ULID_PREFIX}) FROM base"


def _moved(name: str, copy: int, deliveries: int, prefixes: dict[str, list[str]]) -> str:
    """Return the expression for a column's value in a copy."""
    column = quoted(name)
    later = {
        "_sdc_sequence": str(copy * _NANOSECONDS),
        "_sdc_received_at": f"INTERVAL '{copy * PERIOD_MILLISECONDS} milliseconds'",
        "_sdc_offset": str(copy * deliveries),
        "timestamp": str(copy * PERIOD_MILLISECONDS // 1000),
    }
    if name in later:
        return f"{column} + {later[name]}"
    match name:
        case "data__delivery_id":
            return f"translate({column}, '{BASE64}', '{permuted(BASE64, copy)}')"
        case _ if prefixes.get(name):
            cases = " ".join(
                f"WHEN '{prefix}' THEN '{moved_prefix(prefix, copy)}'" for prefix in prefixes[name]
            )
            chance = f"translate(substr({column}, {ULID_TIME + 1}), '{CROCKFORD}',"
            return (
                f"CASE substr({column}, 1, {ULID_PREFIX}) {cases} END"
                f" || substr({column}, {ULID_PREFIX + 1}, {ULID_TIME - ULID_PREFIX})"
                f" || {chance} '{permuted(CROCKFORD, copy)}')"
            )
        case _:
            return column


@contextmanager
def _connected(warehouse: str) -> Iterator[Execute]:
    if warehouse.startswith("duckdb:"):
        with duckdb.connect(warehouse.removeprefix("duckdb:///")) as file:
            yield lambda statement: file.execute(statement).fetchall()
            file.execute("CHECKPOINT")
        return
    with psycopg.connect(warehouse, autocommit=True) as connection:

        def execute(statement: str) -> Sequence[Sequence[Any]]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        yield execute
        # What autovacuum would do soon, in the midst of what is measured next.
        connection.execute("VACUUM (ANALYZE)")


def main() -> None:
    """Multiply, and print the number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("warehouse")
    parser.add_argument("schema")
    parser.add_argument("deliveries", type=int)
    parser.add_argument("copies", type=int)
    arguments = parser.parse_args()
    with _connected(arguments.warehouse) as execute:
        print(multiply(execute, arguments.schema, arguments.deliveries, arguments.copies))


if __name__ == "__main__":
    main()
