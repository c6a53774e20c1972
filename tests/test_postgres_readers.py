"""Readers of PostgreSQL and loads beside them: neither keeps the other waiting for long."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from customerio_pipeline.errors import WarehouseBusyError
from tests.landed_bodies import Warehouse
from tests.postgres_sessions import body, holding, load_with, run, wait_until
from tests.test_load_faults import check_consistent

COUNT = b"SELECT count(*) FROM stitch_customerio.data"


@pytest.fixture
def warehouse(tmp_path: Path, own_database: str) -> Iterator[Warehouse]:
    """Give an empty warehouse in a server of its own."""
    warehouse = Warehouse(tmp_path, own_database)
    yield warehouse
    warehouse.target.close()


def test_an_open_reader_blocks_neither_loads_nor_other_readers(warehouse: Warehouse) -> None:
    """Known columns load beside it; new ones wait for its end, and nobody queues behind them."""
    warehouse.load_bodies(body(1))
    impatient = warehouse.open(wait_seconds=0.5)
    with holding(warehouse.url, "SELECT * FROM {s}.data") as reader:
        warehouse.load_bodies(body(2))
        assert reader.execute(COUNT).fetchall() == [(2,)]
        warehouse.land(body(3, new_column=1))
        with ThreadPoolExecutor(1) as thread:
            future = thread.submit(load_with, warehouse, impatient)
            others = 0
            with psycopg.connect(warehouse.url, autocommit=True) as other:
                # Longer than our ALTER TABLE waits at a time, much shorter than the load.
                other.execute("SET lock_timeout = '2s'")
                while not future.done():
                    other.execute(COUNT)
                    others += 1
            assert others
            pid = reader.info.backend_pid
            with pytest.raises(WarehouseBusyError, match=rf"locked by session {pid} \(user post"):
                future.result()
    impatient.close()
    warehouse.load()
    assert warehouse.rows("SELECT new_column FROM {s}.data ORDER BY event_id") == [
        (None,),
        (None,),
        (1,),
    ]


def test_new_columns_come_in_while_others_read_all_the_time(warehouse: Warehouse) -> None:
    """No reader fails, waits in a queue or sees a part of a batch; no load fails either."""
    size = 40
    warehouse.load_bodies(*(body(number) for number in range(size)))
    statement = (
        b"SELECT count(*), count(DISTINCT n), (SELECT count(*) FROM stitch_customerio.events),"
        b" (SELECT sum(inserted) FROM stitch_customerio._sdc_loads) FROM stitch_customerio.data"
    )
    ended = threading.Event()

    def read() -> set[tuple[object, ...]]:
        seen = set()
        with psycopg.connect(warehouse.url, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '2s'")
            while not ended.is_set():
                seen.update(connection.execute(statement).fetchall())
        return seen

    with ThreadPoolExecutor(3) as threads:
        readers = [threads.submit(read) for _ in range(3)]
        try:
            for batch in range(1, 9):
                values = {f"column{batch}": batch}
                numbers = range(batch * size, (batch + 1) * size)
                warehouse.load_bodies(*(body(number, **values) for number in numbers))
        finally:
            ended.set()
    seen = set().union(*(reader.result() for reader in readers))
    assert len(seen) > 1
    assert seen <= {(number * size,) * 4 for number in range(10)}
    check_consistent(warehouse)


def test_a_vacuum_does_not_keep_new_columns_out(warehouse: Warehouse) -> None:
    """Autovacuum gives way to those who wait for longer than a statement of ours usually does."""
    # Slow enough not to end by itself, and begun for real.
    run(warehouse.url, "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    run(warehouse.url, "ALTER SYSTEM SET deadlock_timeout = '300ms'")
    run(warehouse.url, "SELECT pg_reload_conf()")
    warehouse.load_bodies(*(body(number, text="x" * 1500) for number in range(2000)))
    run(
        warehouse.url,
        "ALTER TABLE {s}.data SET (autovacuum_vacuum_threshold = 0,"
        " autovacuum_vacuum_insert_threshold = 0, autovacuum_vacuum_cost_delay = 100,"
        " autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_insert_scale_factor = 0)",
    )
    warehouse.target.close()  # sessions say what they changed when they end, at the latest
    begun = "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = '{s}.data'::regclass"
    wait_until(lambda: run(warehouse.url, begun))
    warehouse.land(body(2000, new_column=1))
    with closing(warehouse.open(wait_seconds=5)) as impatient:
        load_with(warehouse, impatient)
    assert warehouse.rows("SELECT count(new_column) FROM {s}.data") == [(1,)]
