"""``erase``: a person leaves landing and tables for good, and nobody else does."""

import gzip
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from customerio_pipeline.errors import LandingError, WarehouseBusyError
from customerio_pipeline.landing import rewriting
from customerio_pipeline.landing.compaction import alone, compact
from customerio_pipeline.landing.erased_rows import erase_rows
from customerio_pipeline.landing.rewriting import rewrite_file
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading import load, staging
from customerio_pipeline.loading.engine import Engine
from customerio_pipeline.loading.load import Loader
from customerio_pipeline.registry.records import Arrays
from customerio_pipeline.verifying.erasing import finish_erasures
from tests.erasing import (
    EMAIL,
    ID,
    MINE,
    MINE_IN_ARRAYS,
    THEIRS,
    Erasing,
    event,
    run_job,
    traces,
)
from tests.installation import installed
from tests.landed_bodies import SCHEMA
from tests.landed_hours import land_hour


@pytest.fixture(params=["duckdb", "postgres"])
def installation(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Erasing]:
    """Give one for each warehouse, each with a way of staging."""
    if request.param == "duckdb":
        url = f"duckdb:///{tmp_path / 'warehouse' / 'customerio.duckdb'}"
        monkeypatch.setattr(staging, "BULK_DELIVERIES", 1)
    else:
        url = request.getfixturevalue("postgres_url")
    with installed(tmp_path, url, monkeypatch, Arrays.SUBTABLES) as parts:
        yield Erasing(*parts)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Erasing]:
    """Give one whose warehouse does not matter."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        yield Erasing(*parts)


def test_nothing_is_left_of_a_person(installation: Erasing, tmp_path: Path) -> None:
    """In no place, however it was named; all that is other people's stays, and adds up."""
    house = installation.warehouse
    house.land(*THEIRS, *MINE, *MINE_IN_ARRAYS)
    house.land(gzip.compress(MINE[0].replace(b"mine-1", b"mine-g1")), content_encoding="gzip")
    house.land(MINE[1].replace(b"mine-2", b"mine-h1"), signatures=["invalid"], signed=[("1", "ab")])
    house.load()
    # Another version of an event, and one that waits.
    house.land(event("mine-1", subject="mine too"), event("t4"), event("mine-w1", customer_id=ID))
    house.load()
    house.land(event("mine-w2", recipient=EMAIL), event("t5"))
    events, rejected = house.events(), house.rejected()
    assert len(traces(tmp_path, ID, EMAIL)) == 4

    found = installation.before()
    assert found == {
        "landing": 20,
        "data": 13,
        "data__data__recipients": 1,
        "_sdc_rejected": 4,
    }
    assert traces(tmp_path, EMAIL, "mine-") == []
    remaining = house.events()
    assert set(remaining) == {"t1", "t2", "t3", "t4", "a1"}
    assert remaining == {event_id: events[event_id] for event_id in remaining}
    assert len(house.rejected()) == len(rejected) - 4
    assert len(installation.table("data__data__recipients")) == 1

    house.load()
    assert set(house.events()) == {"t1", "t2", "t3", "t4", "t5", "a1"}
    verified = installation.check()
    assert (verified["erased"], verified["held"]) == (18, 0)
    assert verified["landed"] == verified["loaded"] == 27
    rows = installation.table("data"), installation.table("_sdc_rejected")
    assert installation.run("rebuild", SCHEMA).exit_code == 0
    assert [row[0] for row in installation.table("_sdc_rejected")] == [row[0] for row in rows[1]]
    assert len(installation.table("data")) == len(rows[0])
    assert "18 of them erased" in installation.run("verify").output


def test_what_is_erased_stays_so(installation: Erasing, tmp_path: Path) -> None:
    """Whatever brings it again: a repeat, an old file, a backup, replays, a rebuild."""
    house = installation.warehouse
    old = tmp_path / "old.jsonl"
    elsewhere = tmp_path / "elsewhere.jsonl"
    old.write_bytes(b"\n".join([*MINE[:9], THEIRS[0]]))
    elsewhere.write_bytes(b"\n".join([event("mine-97", recipient=EMAIL), event("t2")]))
    installation.printed("import", SCHEMA, str(old))
    house.land(*MINE, *THEIRS)
    house.load()
    shutil.copytree(house.landing, tmp_path / "backup")
    installation.erase()

    # What was imported before is there still; an import of more lands nothing of the person.
    [found] = installation.printed("import", SCHEMA, str(old))["files"]
    assert found["landed"] == 0
    installation.printed("import", SCHEMA, str(elsewhere))
    for file in (old, elsewhere):
        file.unlink()
    assert traces(house.landing, EMAIL, "mine-") == []
    house.land(event("mine-1", 2_000_000_000), event("mine-98", customer_id=ID), event("t6"))
    house.load()
    assert set(house.events()) == {"t1", "t2", "t3", "t6"}
    installation.printed("replay", SCHEMA, "--since", "2000-01-01")
    installation.printed("replay-rejected", SCHEMA)
    assert set(house.events()) == {"t1", "t2", "t3", "t6"}
    verified = installation.check()
    assert installation.run("rebuild", SCHEMA).exit_code == 0
    assert set(house.events()) == {"t1", "t2", "t3", "t6"}
    # What came again is in no table; the hourly job takes it out of landing, too.
    assert len(traces(house.landing, EMAIL, "mine-", ID)) == 2
    assert run_job(installation)
    assert traces(house.landing, EMAIL, "mine-") == []
    assert installation.check()["erased"] == verified["erased"] + 2

    # Old landing files come back, over those that are there.
    shutil.copytree(tmp_path / "backup", house.landing, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "backup")
    house.load()
    assert run_job(installation)
    assert traces(tmp_path, EMAIL, "mine-") == []
    assert set(house.events()) == {"t1", "t2", "t3", "t6"}
    installation.check()


def test_what_a_person_does_later_is_new(installation: Erasing) -> None:
    """And can be erased again."""
    house = installation.warehouse
    house.load_bodies(MINE[0])
    installation.erase()
    house.load_bodies(event("new", 4_000_000_000, recipient=EMAIL))
    house.load_bodies(b'{"event_id":"unknown","data":{"customer_id":"%b"}}' % ID.encode())
    assert run_job(installation)
    assert set(house.events()) == {"new", "unknown"}
    installation.check()
    assert installation.before()["data"] == 2
    assert house.events() == {}
    installation.check()


def test_one_identifier_does_not_take_another_person_along(local: Erasing) -> None:
    """Who shares an address with somebody stays, under the own id."""
    both = event("shared", identifiers={"id": "1", "email": EMAIL})
    local.warehouse.load_bodies(both, event("own", identifiers={"id": "1"}))
    assert local.before("--email", EMAIL)["data"] == 1
    assert list(local.warehouse.events()) == ["own"]


def test_rows_whose_deliveries_expired_go_too(
    installation: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table says itself whom they name."""
    monkeypatch.setenv("CUSTOMERIO_LANDING_RETENTION_DAYS", "7")
    house = installation.warehouse
    land_hour(house.landing, [*MINE[:9], *THEIRS, *MINE[9:]])
    house.load()
    assert installation.printed("expire")[0]["deliveries"] == len(MINE + THEIRS)
    found = installation.before()
    assert (found["landing"], found["data"], found["_sdc_rejected"]) == (0, 9, 4)
    assert set(house.events()) == {"t1", "t2", "t3"}
    [verified] = installation.printed("verify", "--deep")
    assert verified["gaps"] == []


def test_rows_that_only_have_hashes_of_the_person_go_too(
    installation: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rules hash the columns that name somebody, and the deliveries expired."""
    monkeypatch.setenv("CUSTOMERIO_LANDING_RETENTION_DAYS", "7")
    house = installation.warehouse
    for pattern in ("*customer_id", "*identifiers*", "*recipient*", "*email*"):
        assert installation.run("rules", "add", SCHEMA, pattern, "hash").exit_code == 0
    land_hour(house.landing, [*MINE[:9], *THEIRS, *MINE[9:]])
    assert installation.run("load").exit_code == 0
    assert installation.printed("expire")[0]["deliveries"] == len(MINE + THEIRS)
    # Not those that spell the address otherwise, nor an id that is a recipient.
    found = installation.before("--customer-id", ID, "--email", EMAIL)
    assert found["data"] == 7
    assert set(house.events()) == {"t1", "t2", "t3", "mine-5", "mine-9"}


def test_several_people_by_standard_input(local: Erasing, tmp_path: Path) -> None:
    """So that nobody's address is in the list of processes."""
    house = local.warehouse
    house.load_bodies(MINE[3], event("e2", recipient="bob@mail.example"), THEIRS[0])
    house.target.close()
    arguments = ["erase", "Stitch Customerio", "--email", "-", "--customer-id", "nobody"]
    result = CliRunner().invoke(cli, arguments, input=f"{EMAIL}\n\n BOB@mail.example \n")
    assert result.exit_code == 0, result.output
    assert "2 events erased" in result.output
    assert EMAIL not in result.output
    assert set(house.events()) == {"t1"}


@pytest.mark.parametrize(
    "options",
    [[], ["--email", "-", "--customer-id", "-"], ["--email", "no address"], ["--customer-id", " "]],
)
def test_who_is_to_be_erased_must_be_said(local: Erasing, options: list[str]) -> None:
    """Nothing is erased otherwise."""
    local.warehouse.load_bodies(MINE[3])
    assert local.run("erase", SCHEMA, *options).exit_code == 2
    assert len(local.warehouse.events()) == 1


def test_before_anything_was_loaded(local: Erasing) -> None:
    """Or landed at all."""
    house = local.warehouse
    assert local.before() == {"landing": 0, "data": 0, "_sdc_rejected": 0}
    house.land(MINE[0], THEIRS[0])
    assert local.before()["landing"] == 1
    house.load()
    assert list(house.events()) == ["t1"]
    local.check()


def test_a_batch_that_was_prepared_before_is_prepared_anew(
    installation: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a load that goes on would bring what was erased meanwhile."""
    monkeypatch.setattr(load, "MAX_BATCH_DELIVERIES", 1)
    house = installation.warehouse
    for body in (THEIRS[0], THEIRS[1], MINE[0], THEIRS[2]):
        house.land(body)
    loader = Loader(SCHEMA, house.landing, house.target, layout=house.layout)
    with closing(loader):
        for _ in range(2):  # the third one is prepared now
            assert loader.load_next() is not None
        erased = CliRunner().invoke(cli, ["erase", SCHEMA, "--customer-id", ID])
        assert erased.exit_code == 0, erased.output
        while loader.load_next() is not None:
            pass
    assert set(house.events()) == {"t1", "t2", "t3"}
    installation.check()


def test_a_file_is_written_anew_between_two_looks_into_it(
    local: Erasing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load counts every delivery of it once, held or not."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", 1)
    house = local.warehouse
    file = house.land(MINE[0], MINE[1], THEIRS[0], signatures=["invalid", "unchecked", "unchecked"])
    execute = Engine.execute

    def late(engine: Engine, sql: str, parameters: Sequence[object] = ()) -> None:
        execute(engine, sql, parameters)
        if "TEMP TABLE raw" in sql:
            rests = {0: None, 1: None}
            rewrite_file(house.landing, file, lambda table: erase_rows(table, rests))

    monkeypatch.setattr(Engine, "execute", late)
    [report] = house.load()
    assert (report.deliveries, report.held) == (3, 0)
    assert local.printed("verify")[0]["gaps"] == []


def test_others_who_are_at_work_are_named(local: Erasing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction, rebuilds, and readers that keep the files still."""
    house = local.warehouse
    house.load_bodies(MINE[0], THEIRS[0])
    with alone(house.landing, SCHEMA):
        result = local.run("erase", SCHEMA, "--customer-id", ID)
    assert isinstance(result.exception, LandingError)
    assert list(house.events()) == ["mine-1", "t1"]
    monkeypatch.setattr(rewriting, "_WAIT_SECONDS", 0.1)
    with kept_still(house.landing, SCHEMA):
        result = local.run("erase", SCHEMA, "--customer-id", ID)
    assert (result.exit_code, "is being read all the while" in result.output) == (1, True)
    assert list(house.events()) == ["t1"]
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE_WAIT_SECONDS", "0.1")
    with closing(house.open(wait_seconds=5)) as other, other.exclusive(f"{SCHEMA} (rebuild)"):
        result = local.run("erase", SCHEMA, "--customer-id", ID)
    assert isinstance(result.exception, WarehouseBusyError)
    local.erase()
    assert list(house.events()) == ["t1"]


def test_compaction_before_and_after(local: Erasing) -> None:
    """Rows from which something was erased are rows like others."""
    house = local.warehouse
    land_hour(house.landing, *([body] for body in [*MINE, *THEIRS]))
    compact(house.landing, SCHEMA)
    house.load()
    local.erase()
    late = land_hour(house.landing, *([body] for body in MINE[:3]), first=len(MINE + THEIRS))
    house.load()
    assert run_job(local)
    assert not any(file.path(house.landing).exists() for file in late)
    assert traces(house.landing, EMAIL, "mine-") == []
    assert local.check()["erased"] == len(MINE) - 1 + 3


def test_what_killed_processes_left_goes_too(local: Erasing) -> None:
    """Copies that no listing shows: of a compaction, an expiry, a sealing."""
    house = local.warehouse
    [file] = land_hour(house.landing, [MINE[0], THEIRS[0]])
    hour = file.path(house.landing).parent
    content = file.path(house.landing).read_bytes()
    beside = hour.with_name(f".{hour.name}.compacted")
    beside.mkdir()
    (beside / file.path(house.landing).name).write_bytes(content)
    (hour / ".w0-000000000002-000000000002.parquet.tmp").write_bytes(content)
    house.load()
    local.erase()
    assert traces(house.landing, "mine-") == []
    assert sorted(path.name for path in hour.parent.rglob("*")) == [
        "hour=05",
        file.path(house.landing).name,
    ]


def test_a_damaged_file_is_named(local: Erasing) -> None:
    """It may hold something, so the erasure is not complete; the rest is erased."""
    house = local.warehouse
    small = land_hour(house.landing, [MINE[0]], [MINE[1]])
    house.load()
    path = small[1].path(house.landing)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    result = local.run("erase", SCHEMA, "--customer-id", ID)
    assert result.exit_code == 1
    assert small[1].relative_path in result.output
    path.write_bytes(content)
    house.target.close()
    with closing(house.open(wait_seconds=5)) as target:
        done = finish_erasures(target, house.landing, SCHEMA)
    assert done == f"{SCHEMA}: 1 events erased from landing"
    assert traces(house.landing, "mine-") == []
    assert house.events() == {}
