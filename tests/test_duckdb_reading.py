"""Reading a DuckDB warehouse while loads go on: the file itself, and its read copy."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from customerio_pipeline.errors import QueryError, WarehouseBusyError
from customerio_pipeline.loading import load
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.warehouse.duckdb_reader import DuckDBReader
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
from tests.damaged_warehouses import DAMAGE, DIE_AFTER_COMMIT
from tests.landed_bodies import SCHEMA, Warehouse
from tests.test_load_faults import HOLD, hear, say, start

COUNT = f"SELECT count(*) FROM {SCHEMA}.data"  # noqa: S608  a constant

PUBLISH_AND_DIE = """
import os, pathlib, signal, sys
from pathlib import Path
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
moments = {
    "copying": (os, "copy_file_range", True),
    "syncing": (os, "fsync", False),
    "renaming": (pathlib.Path, "rename", False),
    "renamed": (pathlib.Path, "rename", True),
}
owner, name, after = moments[sys.argv[2]]
call = getattr(owner, name)
def die(*arguments, **more):
    if after:
        call(*arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, die)
DuckDBTarget(Path(sys.argv[1]), wait_seconds=5, publish_seconds=60).publish(force=True)
"""

PUBLISH_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
DuckDBTarget(Path(sys.argv[1]), wait_seconds=5, publish_seconds=60).publish(force=True)
"""

LOAD_ONE_BY_ONE = """
import sys
from pathlib import Path
from customerio_pipeline.loading import load
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
load.MAX_BATCH_DELIVERIES = 1  # one transaction a file
target = DuckDBTarget(Path(sys.argv[3]), wait_seconds=20, publish_seconds=0.001)
for report in load.drain(load.Loader(sys.argv[1], Path(sys.argv[2]), target)):
    print(report.row_count, flush=True)
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    """Give an empty warehouse with a read copy."""
    warehouse = Warehouse(tmp_path)
    warehouse.target.close()
    warehouse.target = DuckDBTarget(warehouse.file, wait_seconds=20, publish_seconds=60)
    yield warehouse
    warehouse.target.close()


def copy_of(warehouse: Warehouse) -> Path:
    """Return the read copy."""
    return warehouse.file.with_name("customerio-read.duckdb")


def count(file: Path) -> int:
    """Count the rows of `data` as any DuckDB client does."""
    with duckdb.connect(file, read_only=True) as connection:
        [(rows,)] = connection.execute(COUNT).fetchall()
    return int(rows)


def litter(warehouse: Warehouse) -> set[str]:
    """Return what lies in the folder besides the two files and locks."""
    names = {path.name for path in warehouse.file.parent.iterdir()}
    return {
        name
        for name in names - {"customerio.duckdb", "customerio-read.duckdb"}
        if not name.endswith(".lock")
    }


def test_a_load_ends_with_a_current_copy(warehouse: Warehouse) -> None:
    """Within the interval too: nobody else would publish what the last load brought."""
    for rows in (1, 2):
        warehouse.load_bodies(b'{"event_id":"e%d"}' % rows)
        assert count(copy_of(warehouse)) == rows
    made = copy_of(warehouse).stat().st_ino
    assert warehouse.load() == []
    assert copy_of(warehouse).stat().st_ino == made
    assert litter(warehouse) == set()


def test_the_interval_is_kept_while_batches_follow_each_other(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies are made at once, then after the interval, then at the end."""
    monkeypatch.setattr(load, "MAX_BATCH_DELIVERIES", 1)
    for number in range(5):
        warehouse.land(b'{"event_id":"e%d"}' % number)
    found = []
    with closing(Loader(SCHEMA, warehouse.landing, warehouse.target)) as loader:
        for report in drain(loader):
            made = copy_of(warehouse)
            found.append((report.row_count, count(made) if made.exists() else None))
    assert found == [(1, None), (2, 1), (3, 1), (4, 1), (5, 1)]
    assert count(copy_of(warehouse)) == 5


def test_no_copy_where_none_is_wanted(warehouse: Warehouse) -> None:
    """An interval of 0 turns it off."""
    warehouse.target.close()
    warehouse.target = DuckDBTarget(warehouse.file, wait_seconds=20, publish_seconds=0)
    warehouse.load_bodies(b'{"event_id":"e1"}')
    assert not copy_of(warehouse).exists()


def test_a_copy_that_is_open_stays_as_it_is(warehouse: Warehouse) -> None:
    """A notebook keeps what it opened, holds nobody up, and sees the new one when it opens it."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    with duckdb.connect(copy_of(warehouse), read_only=True) as notebook:
        warehouse.load_bodies(b'{"event_id":"e2"}')
        assert notebook.execute(COUNT).fetchall() == [(1,)]
    assert count(copy_of(warehouse)) == 2


def test_a_log_of_somebody_who_wrote_into_the_copy_does_no_harm(warehouse: Warehouse) -> None:
    """It would not fit the next copy."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    log = copy_of(warehouse).with_name("customerio-read.duckdb.wal")
    log.write_bytes(b"of another file")
    warehouse.load_bodies(b'{"event_id":"e2"}')
    assert not log.exists()
    assert count(copy_of(warehouse)) == 2


def test_a_copy_cannot_be_written_by_mistake(warehouse: Warehouse) -> None:
    """Nobody's work is lost with the next copy; root may do everything."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    assert copy_of(warehouse).stat().st_mode & 0o777 == 0o444 & warehouse.file.stat().st_mode


def test_what_a_killed_load_committed_is_in_the_copy(warehouse: Warehouse) -> None:
    """It is in the write-ahead log only, and no load follows that finds anything to do."""
    warehouse.land(b'{"event_id":"e1"}')
    arguments = [SCHEMA, warehouse.landing, warehouse.file]
    start(DIE_AFTER_COMMIT, *arguments).communicate()
    assert warehouse.load() == []
    assert count(copy_of(warehouse)) == 1
    assert litter(warehouse) == set()


@pytest.mark.parametrize("moment", ["copying", "syncing", "renaming", "renamed"])
def test_killed_while_publishing(warehouse: Warehouse, moment: str) -> None:
    """The old copy or the new one is there, whole; the next publication clears up."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    warehouse.target._publish_seconds = 0
    warehouse.load_bodies(b'{"event_id":"e2"}')
    process = start(PUBLISH_AND_DIE, warehouse.file, moment)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert count(copy_of(warehouse)) == (2 if moment == "renamed" else 1)
    warehouse.target._publish_seconds = 60
    warehouse.load()
    assert count(copy_of(warehouse)) == 2
    assert litter(warehouse) == set()


def test_no_room_for_the_copy(warehouse: Warehouse) -> None:
    """The load is done all the same, a warning says what is missing, the next one tries again."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    warehouse.target._publish_seconds = 0
    warehouse.load_bodies(b'{"event_id":"e2"}')
    process = subprocess.run(
        [sys.executable, "-c", PUBLISH_WITHOUT_ROOM, warehouse.file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be made now: File too large. The next load tries again." in process.stderr
    assert process.stderr.count("\n") == 1
    assert count(copy_of(warehouse)) == 1
    assert litter(warehouse) == set()
    warehouse.target._publish_seconds = 60
    warehouse.load()
    assert count(copy_of(warehouse)) == 2


def test_a_held_warehouse_is_read_from_its_copy(warehouse: Warehouse) -> None:
    """State and rows; and the reader says of when they are."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    holder = start(HOLD, warehouse.file)
    assert hear(holder) == "held"
    with closing(DuckDBReader(warehouse.file, wait_seconds=0.1)) as reader:
        assert reader.query(COUNT).rows == [(1,)]
        assert list(reader.state(SCHEMA).loaded) == ["w0"]
        assert reader.copied_at is not None
        assert timedelta() <= datetime.now(UTC) - reader.copied_at < timedelta(minutes=5)
    copy_of(warehouse).unlink()
    with (
        closing(DuckDBReader(warehouse.file, wait_seconds=0.1)) as reader,
        pytest.raises(WarehouseBusyError, match=f"is held by process {holder.pid} "),
    ):
        reader.query(COUNT)
    say(holder)
    holder.communicate()
    with closing(DuckDBReader(warehouse.file, wait_seconds=0.1)) as reader:
        assert reader.query(COUNT).rows == [(1,)]
        assert reader.copied_at is None


def test_a_damaged_warehouse_is_read_from_its_copy(warehouse: Warehouse) -> None:
    """Until a load has made it again, and while it is gone."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    DAMAGE["zeros"](warehouse.file)
    for _ in range(2):
        with closing(DuckDBReader(warehouse.file, wait_seconds=0.1)) as reader:
            assert reader.query(COUNT).rows == [(1,)]
            assert reader.copied_at is not None
        warehouse.file.unlink(missing_ok=True)


def test_readers_see_whole_batches_only(warehouse: Warehouse) -> None:
    """Whoever asks while loads go on, the file or the copy, sees no half of a batch."""
    batches, size = 15, 40
    for number in range(batches):
        warehouse.land(*(b'{"event_id":"e%d-%d"}' % (number, at) for at in range(size)))
    loading = start(LOAD_ONE_BY_ONE, SCHEMA, warehouse.landing, warehouse.file)
    assert hear(loading) == str(size)
    seen: dict[str, list[int]] = {"file": [], "copy": []}
    while loading.poll() is None:
        with closing(DuckDBReader(warehouse.file, wait_seconds=20)) as reader:
            [(rows, loaded)] = reader.query(
                f"SELECT ({COUNT}), (SELECT sum(next_offset - first_offset)::BIGINT"  # noqa: S608
                f" FROM {SCHEMA}._sdc_watermarks)"
            ).rows
        assert rows == loaded
        seen["file"].append(int(str(rows)))
        if copy_of(warehouse).exists():
            seen["copy"].append(count(copy_of(warehouse)))
    loading.communicate()
    assert loading.returncode == 0
    for rows_seen in seen.values():
        assert all(rows % size == 0 for rows in rows_seen)
        assert rows_seen == sorted(rows_seen)
        assert rows_seen
    assert count(copy_of(warehouse)) == batches * size


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nothing FROM nowhere", "The query failed: Table with name nowhere does not exist"),
        ("SELECT x FROM stitch_customerio.data", 'Candidate bindings: "event_id"'),
        ("SELECT 1,\n  2 +\nFROM x", 'syntax error at or near "FROM" (line 3, at FROM).'),
        ("SELECT 'a'::INT", "Could not convert string 'a' to INT32 (line 1, at ::)."),
        ("SELECT sum(event_id) FROM stitch_customerio.data", "Candidate functions: sum(arg"),
        ("SELECT 1; DELETE FROM x", "Table with name x does not exist"),
    ],
)
def test_a_wrong_statement_gets_one_line(warehouse: Warehouse, sql: str, message: str) -> None:
    """What is wrong and where, once."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    with pytest.raises(QueryError) as caught:
        warehouse.target.query(sql)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "LINE" not in str(caught.value)


class TestCommandLine:
    """``query`` and ``status`` as a user types them."""

    @pytest.fixture(autouse=True)
    def _home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
        with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
            registry.create("Stitch Customerio")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run ``customerio-pipeline``."""
        command = Path(sys.executable).with_name("customerio-pipeline")
        return subprocess.run([command, *arguments], capture_output=True, text=True, check=False)

    def test_a_held_warehouse_is_read_from_its_copy(self, warehouse: Warehouse) -> None:
        """One line on standard error says so; what is printed for programs stays clean."""
        warehouse.load_bodies(b'{"event_id":"e1"}')
        holder = start(HOLD, warehouse.file)
        assert hear(holder) == "held"
        query = self.run("query", f"SELECT event_id FROM {SCHEMA}.data", "--json")  # noqa: S608
        status = self.run("status", "--json")
        say(holder)
        holder.communicate()
        assert json.loads(query.stdout) == [{"event_id": "e1"}]
        assert json.loads(status.stdout)[0]["rows"] == 1
        made = datetime.fromtimestamp(copy_of(warehouse).stat().st_ctime, UTC)
        time = made.isoformat(timespec="seconds")
        line = f"The warehouse cannot be read just now: this is its copy of {time}.\n"
        assert query.stderr == status.stderr == line
        assert self.run("query", COUNT).stderr == ""

    def test_a_load_says_what_it_set_aside(self, warehouse: Warehouse) -> None:
        """The name is printed, and the load goes on to the end."""
        warehouse.load_bodies(b'{"event_id":"e1"}')
        DAMAGE["zeros"](warehouse.file)
        result = self.run("load")
        [aside] = warehouse.file.parent.glob("*.damaged-*")
        assert result.returncode == 0
        assert result.stdout.startswith("stitch_customerio: 1 events from 1 files")
        assert result.stderr.startswith(f"WARNING: The warehouse {warehouse.file} is damaged (")
        assert f" It is set aside as {aside}, " in result.stderr
        assert result.stderr.count("\n") == 1
