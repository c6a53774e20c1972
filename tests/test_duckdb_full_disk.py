"""No room for the warehouse: one sentence, nothing half done, and the next load goes on.

The limit is the kernel's on the size of a process's files, which needs no privilege; the crash
campaign (`make crash-test-load`) does the same on a full file system.
"""

import hashlib
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


def body(event_id: bytes) -> bytes:
    """Return a body that does not compress well."""
    text = hashlib.sha512(event_id).hexdigest().encode() * 8
    return b'{"event_id":"%s","x":"%s"}' % (event_id, text)


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


@pytest.mark.parametrize(
    ("room", "fits"),
    [
        pytest.param(0, False, id="none for the log"),
        pytest.param(1_000_000, False, id="not for all of the log"),
        pytest.param(2_500_000, True, id="for the log, not for the file"),
        pytest.param(4_000_000, True, id="enough"),
    ],
)
def test_room_that_does_not_suffice(
    warehouse: Warehouse, loading: "subprocess.Popen[str]", room: int, *, fits: bool
) -> None:
    """Wherever the disk is full in a load, the batch is there as a whole or not at all."""
    warehouse.land(*(body(b"a%d" % number) for number in range(300)))
    say(loading, "0")
    assert hear(loading) == "300"
    warehouse.land(*(body(b"b%d" % number) for number in range(3000)), b"no JSON")
    say(loading, str(warehouse.file.stat().st_size + room))
    said = hear(loading)
    if fits:
        assert said == "3000"
    else:
        assert said.startswith(f"The warehouse {warehouse.file} refused a load of {SCHEMA}: ")
        assert said.endswith("File too large; nothing was changed.")
    check_consistent(warehouse)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(3300 if fits else 300,)]
    say(loading, "0")
    assert hear(loading) == ("0" if fits else "3000")
    check_consistent(warehouse)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(3300,)]
    # What was committed without room to write it down is in the log until something is loaded.
    assert names(warehouse) in (
        ["customerio.duckdb"],
        ["customerio.duckdb", "customerio.duckdb.wal"],
    )
