"""No room for the warehouse: one sentence, nothing half done, and the next load goes on.

The limit is the kernel's on the size of a process's files, which needs no privilege; the crash
campaign (`make crash-test-load`) does the same on a full file system.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.landed_bodies import SCHEMA, Warehouse
from tests.test_load_faults import check_consistent, hear, say, start

LOAD_WITH_LIMIT = """
import logging, resource, sys
from pathlib import Path
from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
logging.disable()
target = DuckDBTarget(Path(sys.argv[3]), wait_seconds=5)
loader = Loader(sys.argv[1], Path(sys.argv[2]), target)
for line in sys.stdin:
    limit = int(line) or resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        print(sum(report.inserted for report in drain(loader)), flush=True)
    except WarehouseError as error:
        print(error, flush=True)
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    """Give an empty warehouse."""
    warehouse = Warehouse(tmp_path)
    yield warehouse
    warehouse.target.close()


@pytest.fixture
def loading(warehouse: Warehouse) -> Iterator[subprocess.Popen[str]]:
    """Give a process that loads at each line that it reads: the most bytes of a file, 0: any."""
    process = start(LOAD_WITH_LIMIT, SCHEMA, warehouse.landing, warehouse.file)
    yield process
    process.communicate()
    assert process.returncode == 0


def names(warehouse: Warehouse) -> list[str]:
    """Return what lies in the warehouse's folder, but for lock files."""
    found = (path.name for path in warehouse.file.parent.iterdir())
    return sorted(name for name in found if not name.endswith(".lock"))


def test_no_room_for_a_first_load(warehouse: Warehouse, loading: "subprocess.Popen[str]") -> None:
    """No torn file is left that would look like damage."""
    warehouse.land(b'{"event_id":"e1"}')
    for _ in range(2):
        say(loading, "1000")
        assert hear(loading).endswith(
            "customerio.duckdb cannot be opened: Could not write file"
            f' "{warehouse.file.with_name(".customerio.duckdb.new")}":'
            " File too large."
        )
        assert names(warehouse) == []
    say(loading, "0")
    assert hear(loading) == "1"
    assert names(warehouse) == ["customerio.duckdb"]


@pytest.mark.parametrize("room", [0, 100_000, 400_000, 1_000_000, 2_000_000, 3_000_000])
def test_room_that_does_not_suffice(
    warehouse: Warehouse, loading: "subprocess.Popen[str]", room: int
) -> None:
    """Wherever the disk is full in a load, the batch is there as a whole or not at all."""
    bodies = [b'{"event_id":"a%d","x":"%0400d"}' % (n, n**40) for n in range(1500)]
    warehouse.land(*bodies)
    say(loading, "0")
    assert hear(loading) == "1500"
    warehouse.land(*(body.replace(b'"a', b'"b') for body in bodies), b"no JSON")
    say(loading, str(warehouse.file.stat().st_size + room))
    said = hear(loading)
    if said != "1500":
        assert said.startswith(f"The warehouse {warehouse.file} refused a load of {SCHEMA}: ")
        assert said.endswith("File too large; nothing was changed.")
    check_consistent(warehouse)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(3000 if said == "1500" else 1500,)]
    say(loading, "0")
    assert hear(loading) == ("0" if said == "1500" else "1500")
    check_consistent(warehouse)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(3000,)]
    # What was committed without room to write it down is in the log until something is loaded.
    assert names(warehouse) in (
        ["customerio.duckdb"],
        ["customerio.duckdb", "customerio.duckdb.wal"],
    )
