"""Loads that meet a crash, a lock, a damaged file or each other: nothing lost, nothing doubled."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from customerio_pipeline.errors import (
    LandingError,
    WarehouseBusyError,
    WarehouseUnavailableError,
)
from tests.landed_bodies import SCHEMA, Warehouse

LOAD = """
import sys
from pathlib import Path
from customerio_pipeline.loading.load import Loader
from customerio_pipeline.loading import load
from customerio_pipeline.settings import Settings
from customerio_pipeline.warehouse import open_warehouse
load.MAX_BATCH_DELIVERIES = 1  # one transaction a file
target = open_warehouse(Settings.model_validate({"CUSTOMERIO_WAREHOUSE": sys.argv[3]}))
loader = Loader(sys.argv[1], Path(sys.argv[2]), target)
print("ready", flush=True)
sys.stdin.readline()
while loader.load_next():
    print("loaded", flush=True)
"""

HOLD = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python code in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def say(process: subprocess.Popen[str], line: str = "") -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Wait for a line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def warehouse(tmp_path: Path, warehouse_url: str) -> Iterator[Warehouse]:
    """Give an empty warehouse of each kind."""
    warehouse = Warehouse(tmp_path, warehouse_url)
    yield warehouse
    warehouse.target.close()


@pytest.fixture
def duckdb_file(tmp_path: Path) -> Iterator[Warehouse]:
    """Give an empty warehouse in a DuckDB file."""
    warehouse = Warehouse(tmp_path)
    yield warehouse
    warehouse.target.close()


def test_loading_again_changes_nothing(warehouse: Warehouse) -> None:
    """A repeat finds nothing to do."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    before = warehouse.rows("SELECT * FROM {s}.data")
    assert warehouse.load() == []
    assert warehouse.rows("SELECT * FROM {s}.data") == before


def test_killed_loads_leave_all_of_a_batch_or_nothing(warehouse: Warehouse) -> None:
    """Design C4: kill -9 at random moments, then a normal load: every event exactly once."""
    chance = random.Random(7)
    files = 16
    for number in range(files):
        bodies = [
            b'{"event_id":"e%d","n":%d,"k%d":1}' % (number * 7 + at, number, number)
            for at in range(10)
        ]
        warehouse.land(*bodies, b"not JSON")
    kills = 0
    while kills < 4:
        process = start(LOAD, SCHEMA, warehouse.landing, warehouse.url)
        assert hear(process) == "ready"
        say(process)
        for _ in range(chance.randint(0, 2)):
            hear(process)
        # A pause of some microseconds to milliseconds: it may fall anywhere in a transaction.
        for _ in range(chance.randint(0, 300_000)):
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        if not warehouse.is_duckdb or warehouse.file.exists():
            check_consistent(warehouse)
    warehouse.load()
    check_consistent(warehouse)
    assert len(warehouse.rejected()) == files
    assert warehouse.rows("SELECT event_id, n FROM {s}.data ORDER BY n, event_id") == sorted(
        [(f"e{at}", min(at // 7, files - 1)) for at in range((files - 1) * 7 + 10)],
        key=lambda row: (row[1], row[0]),
    )
    assert warehouse.rows("SELECT writer, first_offset, next_offset FROM {s}._sdc_watermarks") == [
        ("w0", 0, files * 11)
    ]


def check_consistent(warehouse: Warehouse) -> None:
    """Assert that counts, watermark, rejected and rows tell the same story."""
    tables = warehouse.rows(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = '{s}'"
    )
    if tables == [(0,)]:
        return
    [(deliveries, inserted, rejected, rows, distinct, loaded, refused)] = warehouse.rows(
        "SELECT (SELECT coalesce(sum(deliveries), 0) FROM {s}._sdc_loads),"
        " (SELECT coalesce(sum(inserted), 0) FROM {s}._sdc_loads),"
        " (SELECT coalesce(sum(rejected), 0) FROM {s}._sdc_loads),"
        " (SELECT count(*) FROM {s}.data), (SELECT count(DISTINCT event_id) FROM {s}.data),"
        " (SELECT coalesce(sum(next_offset - first_offset), 0) FROM {s}._sdc_watermarks),"
        " (SELECT count(*) FROM {s}._sdc_rejected)"
    )
    assert deliveries == loaded
    assert inserted == rows == distinct
    assert rejected == refused


def test_two_loads_at_once_wait_for_each_other(warehouse: Warehouse) -> None:
    """Neither fails, and every event is there once."""
    for number in range(12):
        warehouse.land(*(b'{"event_id":"e%d-%d"}' % (number, at) for at in range(20)))
    loads = [start(LOAD, SCHEMA, warehouse.landing, warehouse.url) for _ in range(2)]
    for process in loads:
        assert hear(process) == "ready"
    for process in loads:
        say(process)
    assert [process.communicate()[0].count("loaded") for process in loads] != [0, 0]
    assert [process.returncode for process in loads] == [0, 0]
    check_consistent(warehouse)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(240,)]


def test_locked_warehouse_names_the_holder_and_the_next_load_loads(duckdb_file: Warehouse) -> None:
    """One clear sentence; nothing is lost."""
    duckdb_file.load_bodies(b'{"event_id":"e1"}')
    holder = start(HOLD, duckdb_file.file)
    assert hear(holder) == "held"
    impatient = duckdb_file.open(wait_seconds=0.1)
    duckdb_file.land(b'{"event_id":"e2"}')
    patient, duckdb_file.target = duckdb_file.target, impatient
    with pytest.raises(WarehouseBusyError, match=f"is held by process {holder.pid} "):
        duckdb_file.load()
    say(holder)
    holder.communicate()
    duckdb_file.target = patient
    duckdb_file.load()
    assert duckdb_file.rows("SELECT count(*) FROM {s}.data") == [(2,)]
    impatient.close()


def test_missing_warehouse_is_created_and_filled_from_landing(duckdb_file: Warehouse) -> None:
    """Landing is the truth: a table that is gone comes back the same."""
    duckdb_file.load_bodies(b'{"event_id":"e1","a":1}', b"[]", b'{"event_id":"e1","a":2}')
    expected = duckdb_file.rows("SELECT * EXCLUDE (_sdc_batched_at) FROM {s}.data")
    duckdb_file.file.unlink()
    with pytest.raises(WarehouseUnavailableError, match="does not exist yet"):
        duckdb_file.rows("SELECT 1")
    duckdb_file.load()
    assert duckdb_file.rows("SELECT * EXCLUDE (_sdc_batched_at) FROM {s}.data") == expected


@pytest.mark.parametrize("damage", ["truncated", "no Parquet", "garbled page", "rows missing"])
def test_a_damaged_file_is_named_and_the_others_load(warehouse: Warehouse, damage: str) -> None:
    """After it is restored it loads like any other."""
    warehouse.land(b'{"event_id":"e1"}')
    file = warehouse.land(*(b'{"event_id":"damaged%d","x":"%d"}' % (n, n**9) for n in range(99)))
    warehouse.land(b'{"event_id":"e3"}')
    path = file.path(warehouse.landing)
    sound = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(sound[: len(sound) // 2])
    elif damage == "no Parquet":
        path.write_bytes(b"<html>")
    elif damage == "garbled page":
        path.write_bytes(sound[:4] + bytes(len(sound) // 2) + sound[4 + len(sound) // 2 :])
    else:
        shorter = Warehouse(warehouse.landing.parent / "other").land(b'{"event_id":"e9"}')
        path.write_bytes(
            (warehouse.landing.parent / "other" / "landing" / shorter.relative_path).read_bytes()
        )
    with pytest.raises(LandingError, match=path.name):
        warehouse.load()
    assert warehouse.rows("SELECT event_id FROM {s}.data ORDER BY 1") == [("e1",), ("e3",)]
    path.write_bytes(sound)
    warehouse.load()
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(101,)]
    assert warehouse.rows("SELECT first_offset, next_offset FROM {s}._sdc_watermarks") == [(0, 101)]


def test_a_file_that_appears_late_is_not_skipped(warehouse: Warehouse) -> None:
    """Offsets beyond a gap load at once, those of the gap when they come."""
    warehouse.land(b'{"event_id":"e0"}')
    late = warehouse.land(b'{"event_id":"e1"}').path(warehouse.landing)
    warehouse.land(b'{"event_id":"e2"}')
    hidden = late.with_suffix(".hidden")
    late.rename(hidden)
    warehouse.load()
    assert warehouse.rows(
        "SELECT first_offset, next_offset FROM {s}._sdc_watermarks ORDER BY 1"
    ) == [(0, 1), (2, 3)]
    hidden.rename(late)
    warehouse.load()
    assert warehouse.rows("SELECT event_id FROM {s}.data ORDER BY 1") == [("e0",), ("e1",), ("e2",)]
    assert warehouse.rows("SELECT first_offset, next_offset FROM {s}._sdc_watermarks") == [(0, 3)]


def test_readers_get_in_between(duckdb_file: Warehouse) -> None:
    """The file is open only while a batch is merged: another process may write to it."""
    duckdb_file.load_bodies(b'{"event_id":"e1"}')
    with duckdb.connect(duckdb_file.file) as connection:
        found = connection.sql(f"SELECT count(*) FROM {SCHEMA}.data").fetchall()  # noqa: S608
    assert found == [(1,)]
