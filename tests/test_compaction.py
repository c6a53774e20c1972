"""Compaction: fewer files, the same rows, at any moment and whoever reads meanwhile."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing import folders
from customerio_pipeline.landing.compaction import Compaction, compact
from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.verifying.conservation import account
from receiver.sealing import land
from receiver.slots import SegmentFile
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA
from tests.landed_hours import HOUR, land_hour, names, rows_outside

PROJECT = Path(__file__).parent.parent
FOLDER = f"integration={SCHEMA}/date=2026-01-01/hour=05"


def body(number: int) -> bytes:
    """Return the body of an event."""
    return b'{"event_id":"e%d","v":%d}' % (number, number)


def bodies(count: int, first: int = 0) -> list[list[bytes]]:
    """Return the bodies of files of one event each."""
    return [[body(number)] for number in range(first, first + count)]


@st.composite
def stretches(draw: st.DrawFn) -> list[tuple[str, int, list[int]]]:
    """Return for each stretch of files the writer, the first offset and the deliveries of each."""
    found = []
    for writer in draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1)):
        first = 0
        for _ in range(draw(st.integers(1, 3))):
            sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
            found.append((writer, first, sizes))
            first += sum(sizes) + draw(st.integers(1, 5))
    return found


@settings(max_examples=15, deadline=None)
@given(stretches(), st.data())
def test_rows_stay_and_files_of_a_stretch_become_one(
    landed: list[tuple[str, int, list[int]]], data: st.DataObject
) -> None:
    """Whatever the writers, gaps and sizes; also when old files came back from a backup."""
    with tempfile.TemporaryDirectory() as folder:
        landing = Path(folder)
        small = [
            file
            for writer, first, sizes in landed
            for file in land_hour(
                landing, *([b"x" * size] * size for size in sizes), writer=writer, first=first
            )
        ]
        before = rows_outside(landing)
        offsets = landed_offsets(small)
        copies = {file: file.path(landing).read_bytes() for file in small}

        compact(landing, SCHEMA)

        assert rows_outside(landing) == before
        files = LandingListing(landing, SCHEMA).files()
        assert len(files) == len(landed)
        for back in data.draw(st.lists(st.sampled_from(small))):
            back.path(landing).write_bytes(copies[back])
        assert LandingListing(landing, SCHEMA).files() == files
        assert landed_offsets(files) == offsets
        again = compact(landing, SCHEMA)
        assert (again.problems, again.busy) == ([], 0)
        assert rows_outside(landing) == before
        assert compact(landing, SCHEMA).hours == 0


def test_killed_at_any_operation_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """What readers see stays the same, and the next one finishes."""
    landing = tmp_path / "landing"
    land_hour(landing, *bodies(3))
    land_hour(landing, *bodies(2, 3), writer="w1")
    land_hour(landing, *bodies(1, 5), writer="w1", first=9)
    before = rows_outside(landing)
    output = subprocess.run(
        [sys.executable, "-m", "tests.killed_compactions", str(landing), str(tmp_path / "copies")],
        check=True,
        capture_output=True,
        text=True,
        cwd=PROJECT,
    ).stdout
    assert int(output) > 20
    unfinished = 0
    for copy in sorted((tmp_path / "copies").iterdir()):
        assert rows_outside(copy) == before, copy
        assert sum(map(len, landed_offsets(LandingListing(copy, SCHEMA).files()).values())) == 6
        # The receiver and the loads take no notice.
        land_hour(copy, [b"late"], writer="w2")
        unfinished += compact(copy, SCHEMA).hours
        assert len(rows_outside(copy)) == len(before) + 1
        assert names(copy) == [
            ".compaction.lock",
            "w0-000000000000-000000000002.parquet",
            "w1-000000000000-000000000001.parquet",
            "w1-000000000009-000000000009.parquet",
            "w2-000000000000-000000000000.parquet",
        ]
    assert 0 < unfinished < int(output)


@pytest.fixture
def installation(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Give one of each kind."""
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        yield Installation(warehouse, registry)


def accounts(installation: Installation) -> object:
    """Return what every command says of the deliveries, but for where they are."""
    verified = installation.run("verify", "--deep", "--json")
    assert verified.exit_code == 0, verified.output
    [found] = json.loads(verified.stdout)
    for hour in found["hours"]:
        del hour["files"]
    traced = []
    for event_id in ("e1", "e5", "e9"):
        [trace] = json.loads(installation.run("trace", event_id, "--json").stdout)
        for delivery in trace["deliveries"]:
            assert (installation.warehouse.landing / delivery.pop("file")).is_file()
            del delivery["row"]
        traced.append(trace)
    return found, traced


def test_nobody_notices(installation: Installation) -> None:
    """Loads, verify, trace and rebuild: before, between (old files came back) and after."""
    house = installation.warehouse
    small = land_hour(house.landing, *bodies(6), [b"no JSON"])
    house.load()
    land_hour(house.landing, *bodies(3, 7), first=7)
    before = accounts(installation)
    copies = {file: file.path(house.landing).read_bytes() for file in small}

    done = installation.run("compact", "--json")
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)
    assert (found["files_before"], found["files_after"]) == (10, 1)
    assert accounts(installation) == before

    for file, content in copies.items():
        file.path(house.landing).write_bytes(content)
    assert accounts(installation) == before

    # One file now, of which a part is loaded.
    [report] = house.load()
    assert (report.deliveries, report.inserted) == (3, 3)
    assert house.load() == []
    assert installation.run("rebuild", SCHEMA, "--check").exit_code == 0
    assert installation.run("compact").output == f"{SCHEMA}: 8 files became 1\n"
    assert installation.run("verify", "--deep").exit_code == 0


def test_held_deliveries_are_released_all_the_same(installation: Installation) -> None:
    """What is held is known by its offset."""
    house = installation.warehouse
    house.land(body(1))
    house.land(body(2), signatures=["invalid"])
    house.land(body(3))
    house.load()
    soon = [*house.landing.glob("*/*/*")]
    compact(house.landing, SCHEMA, now=HOUR.replace(year=2100))
    assert len(LandingListing(house.landing, SCHEMA).files()) == len(soon)
    release(house.landing, SCHEMA, {"w0": OffsetSet([(1, 1)])})

    [report] = house.load()
    assert (report.released, report.inserted, report.row_count) == (1, 1, 3)


def test_a_load_whose_files_are_compacted_goes_on(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its listing and its reading, when it waits for the warehouse."""
    house = installation.warehouse
    land_hour(house.landing, *bodies(5))
    compacted: list[Compaction] = []
    exclusive = house.target.exclusive

    @contextmanager
    def late(schema: str) -> Iterator[None]:
        compacted.append(compact(house.landing, SCHEMA))
        with exclusive(schema):
            yield

    monkeypatch.setattr(house.target, "exclusive", late)
    loader = Loader(SCHEMA, house.landing, house.target)
    [report] = drain(loader)
    loader.close()
    assert compacted[0].files_before == 5
    assert (report.files, report.inserted) == (1, 5)


def test_what_is_being_read_stays_until_the_next_time(tmp_path: Path) -> None:
    """A reader that keeps the files still sees all of its listing."""
    small = land_hour(tmp_path, *bodies(3))
    with kept_still(tmp_path, SCHEMA):
        found = compact(tmp_path, SCHEMA, wait_seconds=0)
        assert (found.busy, found.hours) == (1, 0)
        assert all(file.path(tmp_path).is_file() for file in small)
    assert compact(tmp_path, SCHEMA, wait_seconds=0).hours == 1


def test_file_systems_that_cannot_exchange_folders_are_told_so(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, before anything is written; the kernel is asked for what it does not know."""
    landing = installation.warehouse.landing
    small = land_hour(landing, *bodies(3))
    monkeypatch.setattr(folders, "_RENAME_EXCHANGE", 1 << 20)
    result = installation.run("compact")
    assert "two folders of their file system cannot be exchanged" in str(result.exception)
    assert LandingListing(landing, SCHEMA).files() == small
    assert len(names(landing)) == 4


def test_only_one_at_once(tmp_path: Path) -> None:
    """The second says so."""
    land_hour(tmp_path, *bodies(2))
    script = (
        "import fcntl, sys\n"
        "lock = open(sys.argv[1], 'w')\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = tmp_path / f"integration={SCHEMA}" / ".compaction.lock"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LandingError, match="Another process compacts"):
            compact(tmp_path, SCHEMA)
        other.communicate()
    assert compact(tmp_path, SCHEMA).hours == 1


def test_hours_that_may_still_get_files_are_left_alone(tmp_path: Path) -> None:
    """Until ten minutes after their end."""
    land_hour(tmp_path, *bodies(2))
    ended = HOUR.replace(hour=6, minute=0)
    assert compact(tmp_path, SCHEMA, now=ended + timedelta(minutes=9)).hours == 0
    assert compact(tmp_path, SCHEMA, now=ended + timedelta(minutes=10)).hours == 1


def test_damaged_files_stay_for_a_person(installation: Installation) -> None:
    """Those around them are joined, and verify names them as before."""
    house = installation.warehouse
    small = land_hour(house.landing, *bodies(5))
    file = small[2].path(house.landing)
    file.write_bytes(file.read_bytes()[:-20])
    assert installation.run("compact").exit_code == 0

    assert [path.name for path in sorted((house.landing / FOLDER).iterdir())] == [
        "w0-000000000000-000000000001.parquet",
        file.name,
        "w0-000000000003-000000000004.parquet",
    ]
    found = account(house.target, house.landing, house.landing.parent / "spool", SCHEMA)
    assert [gap.file for gap in found.gaps] == [small[2].relative_path]


def test_a_file_with_other_offsets_than_its_name_says_stops_its_folder(
    installation: Installation,
) -> None:
    """Nothing is made of it, and the command says so."""
    landing = installation.warehouse.landing
    small = land_hour(landing, *bodies(3))
    shutil.copy(small[0].path(landing), small[1].path(landing))
    result = installation.run("compact")
    assert small[1].relative_path in str(result.exception)
    assert len(list((landing / FOLDER).iterdir())) == 3
    assert len(names(landing)) == 4


def test_a_file_that_came_at_the_last_moment_is_rescued(tmp_path: Path) -> None:
    """Should the receiver not see the lock: what was left beside is looked through."""
    [late] = land_hour(tmp_path, [b"late"], first=2)
    (tmp_path / FOLDER).rename((tmp_path / FOLDER).with_name(".hour=05.compacted"))
    land_hour(tmp_path, *bodies(2))
    compact(tmp_path, SCHEMA)
    assert [row[1] for row in rows_outside(tmp_path)] == [0, 1, 2]
    assert late.path(tmp_path).name not in names(tmp_path)


def test_a_repeated_sealing_adds_nothing(tmp_path: Path) -> None:
    """Its file is part of a greater one by now."""
    land_hour(tmp_path, *bodies(3))
    compact(tmp_path, SCHEMA)
    before = names(tmp_path)
    delivery = Delivery("w0", 1, 1, 1, "url_1", "unchecked", (None,) * 5, body(1))
    hour = HOUR.replace(minute=0)
    land({SCHEMA: [delivery]}, SegmentFile(path=tmp_path, number=1, hour=hour), tmp_path)
    assert names(tmp_path) == before


def test_row_groups_and_bloom_filters_are_as_the_sealer_makes_them(tmp_path: Path) -> None:
    """Up to 10,000 rows and 32 MiB of bodies, and a filter for each."""
    large = [b"x" * 1_000_000] * 20
    land_hour(tmp_path, *[[body(number) for number in range(4000)]] * 3, large, large)
    compact(tmp_path, SCHEMA)
    [file] = (tmp_path / FOLDER).iterdir()
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [8000, 4020, 20]
    assert {group.column(0).compression for group in groups} == {"ZSTD"}
    path = "event_id"
    assert all(
        group.column(at).bloom_filter_offset is not None
        for group in groups
        for at in range(group.num_columns)
        if group.column(at).path_in_schema == path
    )


def test_dagster_compacts_every_hour_by_itself(installation: Installation) -> None:
    """Nobody has to switch it on."""
    land_hour(installation.warehouse.landing, *bodies(3))
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    schedule = loaded.resolve_schedule_def("landing_upkeep_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    with dg.DagsterInstance.ephemeral() as instance:
        job = loaded.resolve_job_def("landing_upkeep_job")
        assert job.execute_in_process(instance=instance).success
    assert len(LandingListing(installation.warehouse.landing, SCHEMA).files()) == 1
