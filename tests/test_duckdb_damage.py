"""A damaged DuckDB file is set aside and made again; what is no damage is left alone."""

import logging
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import pytest

from customerio_pipeline.errors import (
    WarehouseDamagedError,
    WarehouseError,
    WarehouseUnavailableError,
)
from customerio_pipeline.warehouse.duckdb_errors import is_damage, reason
from customerio_pipeline.warehouse.duckdb_reader import DuckDBReader
from tests.damaged_warehouses import DAMAGE, fill, garble_blocks_of_values, log_of, make_newer
from tests.landed_bodies import SCHEMA, Warehouse

ALL = (
    "SELECT event_id, x, y, _sdc_received_at, _sdc_sequence, _sdc_writer, _sdc_offset, _sdc_key"
    " FROM {s}.data ORDER BY event_id"
)

FAILING_DISKS = (
    'IO Error: Could not read from file "w.duckdb": Input/output error',
    'Failed to commit: Could not write file "w.duckdb": No space left on device',
    "FATAL Error: fsync failed!",
    'FATAL Error: database has been invalidated.\nOriginal error: "fsync failed!"',
    'IO Error: CHECKPOINT failed.\nOriginal error: Could not write file "w": Disk quota exceeded',
)

LOAD_ANOTHER = """
import logging, sys
from pathlib import Path
import duckdb
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
logging.disable()
target = DuckDBTarget(Path(sys.argv[1]), wait_seconds=5)
with target.exclusive("other"):
    assert not target.state("other").loaded
with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("CREATE SCHEMA other")
"""

LOAD_AS_NOBODY = """
import os, sys
from pathlib import Path
from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.loading.load import Loader
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
loader = Loader(sys.argv[1], Path(sys.argv[2]), DuckDBTarget(Path(sys.argv[3]), wait_seconds=1))
if os.getuid() == 0:
    os.setuid(65534)
try:
    loader.load_next()
except WarehouseError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with landing, a warehouse and its write-ahead log; not to be changed."""
    folder = tmp_path_factory.mktemp("filled")
    warehouse = Warehouse(folder)
    fill(warehouse)
    warehouse.target.close()
    return folder


@pytest.fixture
def warehouse(filled: Path, tmp_path: Path) -> Iterator[Warehouse]:
    """Give a copy of it."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    warehouse = Warehouse(tmp_path)
    warehouse.next_offset = {"w0": 3501}
    yield warehouse
    warehouse.target.close()


@pytest.fixture(scope="module")
def expected(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[object, ...]]:
    """Give the rows of a sound warehouse."""
    folder = tmp_path_factory.mktemp("expected")
    shutil.copytree(filled, folder, dirs_exist_ok=True)
    with closing(DuckDBReader(Warehouse(folder).file, wait_seconds=5)) as reader:
        rows = reader.query(ALL.format(s=SCHEMA)).rows
    assert len(rows) == 3500
    return rows


def set_aside(warehouse: Warehouse) -> list[Path]:
    """Return the files set aside, without their logs."""
    found = warehouse.file.parent.glob("customerio.duckdb.damaged-*")
    return sorted(path for path in found if path.suffix != ".wal")


def check_rebuilt(
    warehouse: Warehouse, expected: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """Assert that one file was set aside, by name, and that all of landing is in the new one."""
    [aside] = set_aside(warehouse)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(aside) in warning.getMessage()
    assert warehouse.rows(ALL) == expected
    assert len(warehouse.rejected()) == 1
    assert warehouse.load() == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_set_aside_and_the_same_load_rebuilds(
    warehouse: Warehouse,
    expected: list[tuple[object, ...]],
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is damaged, one load later the table is what it was; nothing was deleted."""
    DAMAGE[damage](warehouse.file)
    sizes = [path.stat().st_size for path in (warehouse.file, log_of(warehouse.file))]

    warehouse.load()

    check_rebuilt(warehouse, expected, caplog)
    [aside] = set_aside(warehouse)
    assert [path.stat().st_size for path in (aside, log_of(aside))] == sizes


def test_a_lost_write_ahead_log_is_loaded_again(
    warehouse: Warehouse, expected: list[tuple[object, ...]]
) -> None:
    """Without it the file is an older state, which is no damage: watermarks are of that state."""
    log_of(warehouse.file).unlink()
    [report] = warehouse.load()
    assert report.events == 500
    assert warehouse.rows(ALL) == expected
    assert set_aside(warehouse) == []


def test_damage_met_in_the_middle_of_a_load(
    warehouse: Warehouse, expected: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """The state can be read, the merge meets the damage: the load begins anew by itself."""
    warehouse.load()
    read_state = warehouse.target._state

    def state_then_damage(schema: str) -> object:
        state = read_state(schema)
        if not set_aside(warehouse):
            DAMAGE["garbage in every block"](warehouse.file)
        return state

    warehouse.target._state = state_then_damage  # type: ignore[method-assign, assignment]
    warehouse.land(b'{"event_id":"a0","x":"%0512d"}' % 0, sequences=[0])
    warehouse.load()
    check_rebuilt(warehouse, expected, caplog)


def test_damage_that_only_a_query_meets_is_repaired_by_the_next_load(
    warehouse: Warehouse, expected: list[tuple[object, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """Loads do not read all values; who does gets one sentence, and the next load the message."""
    warehouse.load()
    with warehouse.target._attached(read_only=False):
        pass  # the log moves into the file
    garble_blocks_of_values(warehouse.file)
    with pytest.raises(WarehouseDamagedError, match="the next load sets it aside"):
        warehouse.rows(ALL)
    with pytest.raises(WarehouseDamagedError, match="A reader found"):
        warehouse.target.state(SCHEMA)  # as the sensor asks
    warehouse.load()
    check_rebuilt(warehouse, expected, caplog)


def test_a_wrong_suspicion_is_dropped(warehouse: Warehouse) -> None:
    """A load looks for itself before it sets anything aside."""
    warehouse.load()
    note = warehouse.file.with_name(".customerio.duckdb.suspected")
    note.write_text(str(warehouse.file.stat().st_ino))
    warehouse.load()
    assert not note.exists()
    assert set_aside(warehouse) == []


def test_damage_again_and_again_needs_a_person(warehouse: Warehouse) -> None:
    """One load sets one file aside; a disk that damages the next one, too, is not filled up."""
    read_state = warehouse.target._state

    def damage_then_state(schema: str) -> object:
        if warehouse.file.exists():
            DAMAGE["zeros"](warehouse.file)
        return read_state(schema)

    warehouse.target._state = damage_then_state  # type: ignore[method-assign, assignment]
    with pytest.raises(WarehouseUnavailableError, match="damaged again right after"):
        warehouse.load()
    assert len(set_aside(warehouse)) == 1


def test_two_loads_that_meet_the_damage_set_aside_once(
    warehouse: Warehouse, expected: list[tuple[object, ...]]
) -> None:
    """Another integration's load, in its process, is quicker: what it has made stays."""
    DAMAGE["garbage in the database headers"](warehouse.file)
    repair = warehouse.target._repair

    def repair_after_another(error: WarehouseDamagedError) -> None:
        subprocess.run(
            [sys.executable, "-c", LOAD_ANOTHER, str(warehouse.file)], check=True, timeout=60
        )
        repair(error)

    warehouse.target._repair = repair_after_another  # type: ignore[method-assign]
    warehouse.load()
    assert len(set_aside(warehouse)) == 1
    assert warehouse.rows(ALL) == expected
    assert warehouse.rows("SELECT schema_name FROM duckdb_schemas() WHERE schema_name = 'other'")


def test_a_file_that_another_integration_has_replaced(
    warehouse: Warehouse, expected: list[tuple[object, ...]]
) -> None:
    """A batch staged for the old file is not merged into the new one: the load begins anew."""
    file = warehouse.file
    read_state = warehouse.target._state

    def state_then_replacement(schema: str) -> object:
        state = read_state(schema)
        if not set_aside(warehouse):
            file.rename(file.with_name(f"{file.name}.damaged-1"))
            log_of(file).rename(file.with_name(f"{file.name}.damaged-1.wal"))
            duckdb.connect(file).close()
        return state

    warehouse.target._state = state_then_replacement  # type: ignore[method-assign, assignment]
    warehouse.land(b'{"event_id":"a0","x":"%0512d"}' % 0, sequences=[0])
    assert [report.events for report in warehouse.load()] == [3502]
    assert warehouse.rows(ALL) == expected


class TestNoDamage:
    """Never set aside: it would help nobody, or take a file that is not ours."""

    def check_refused(self, warehouse: Warehouse, message: str) -> None:
        """Assert that a load gives one sentence and leaves the file where it is."""
        before = warehouse.file.lstat().st_ino
        with pytest.raises(WarehouseError, match=message) as caught:
            warehouse.load()
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, WarehouseDamagedError)
        assert warehouse.file.lstat().st_ino == before
        assert set_aside(warehouse) == []

    def test_a_file_of_a_newer_duckdb(self, warehouse: Warehouse) -> None:
        """Somebody has upgraded elsewhere: the sentence says so."""
        make_newer(warehouse.file)
        self.check_refused(warehouse, "cannot be opened: Trying to read a database file with")

    def test_a_database_of_another_kind(self, warehouse: Warehouse) -> None:
        """A setting that points to a SQLite file must not cost it."""
        warehouse.file.unlink()
        with closing(sqlite3.connect(warehouse.file)) as connection:
            connection.execute("CREATE TABLE important (x)")
        self.check_refused(warehouse, "cannot be opened: ")

    def test_a_folder_in_its_place(self, warehouse: Warehouse) -> None:
        """Neither is a folder a warehouse."""
        warehouse.file.unlink()
        warehouse.file.mkdir()
        self.check_refused(warehouse, "Is a directory")

    def test_no_permission(self, filled: Path) -> None:
        """Tried as a user who may not read the file; root may do everything."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shutil.copytree(filled, folder, dirs_exist_ok=True)
            warehouse = Warehouse(folder)
            for path in (folder, warehouse.file.parent):
                path.chmod(0o777)
            warehouse.file.chmod(0)
            arguments = [SCHEMA, str(warehouse.landing), str(warehouse.file)]
            found = subprocess.run(
                [sys.executable, "-c", LOAD_AS_NOBODY, *arguments],
                capture_output=True,
                text=True,
                check=True,
            )
            assert found.stdout.startswith("WarehouseUnavailableError The warehouse ")
            assert found.stdout.endswith("Permission denied.\n")
            assert set_aside(warehouse) == []

    @pytest.mark.parametrize("text", FAILING_DISKS)
    @pytest.mark.parametrize("kind", [duckdb.IOException, duckdb.FatalException, duckdb.Error])
    def test_a_failing_disk(self, text: str, kind: type[duckdb.Error]) -> None:
        """What DuckDB said when its system calls failed, which no test can have of a disk."""
        error = kind(text)
        assert not is_damage(error)
        assert "\n" not in reason(error)

    def test_no_memory(self, warehouse: Warehouse) -> None:
        """What the engine says then is no damage either."""
        with duckdb.connect(warehouse.file, config={"memory_limit": "4MB"}) as connection:
            connection.execute("SET max_temp_directory_size = '0B'")
            with pytest.raises(duckdb.Error) as caught:
                connection.execute("CREATE TABLE t AS SELECT md5(range::TEXT) FROM range(10**7)")
        assert not is_damage(caught.value)

    def test_a_statement_that_speaks_of_damage(self) -> None:
        """An error's text may quote what users wrote."""
        with pytest.raises(duckdb.Error) as caught:
            duckdb.sql("SELECT error('Corrupt database file')").fetchall()
        assert not is_damage(caught.value)
