"""``erase``: a person leaves landing and tables for good, and nobody else does."""

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from customerio_pipeline.cli import cli
from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import LandingError, WarehouseBusyError
from customerio_pipeline.landing import rewriting
from customerio_pipeline.landing.compaction import alone, compact
from customerio_pipeline.landing.erased_rows import erase_rows
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.landing.rewriting import rewrite_file
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading import load, staging
from customerio_pipeline.loading.engine import Engine
from customerio_pipeline.loading.load import Loader
from customerio_pipeline.registry.records import Arrays
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.verifying.conservation import account
from customerio_pipeline.verifying.erasing import finish_erasures
from tests.erasing import EMAIL, ID, Erasing, event, traces
from tests.installation import installed
from tests.landed_bodies import SCHEMA, Warehouse
from tests.landed_hours import HOUR, land_hour
from tests.running_receiver import running_receiver, wait_landed

PROJECT = Path(__file__).parent.parent

# Each names the person where customerio-webhooks 1.3 to 1.8 says; the last four cannot be rows.
MINE = [
    event("mine-1", customer_id=ID),
    event("mine-2", identifiers={"id": ID, "email": None}),
    event(
        "mine-3", identifiers={"id": "other", "email": EMAIL.lower()}, recipients=[{"device_id": 1}]
    ),
    event("mine-4", recipient=EMAIL),
    event("mine-5", email_address=f"Ann <{EMAIL.upper()}>"),
    event("mine-6", variables={"customer": {"id": ID, "email": "x@y.example"}}),
    event("mine-7", variables={"customer": {"email": EMAIL}}),
    event("mine-8", recipient=EMAIL.replace("@", "\\u0040")).replace(b"\\\\u", b"\\u"),
    event("mine-9", recipient=ID).replace(b'"email"', b'"in_app"'),
    event("", customer_id=ID),
    event("mine-10", customer_id=ID)[:-2],
    f"no JSON, {EMAIL}.".encode(),
    b"[%b, 7]" % event("", recipient=EMAIL).replace(b'"event_id": "", ', b""),
]
THEIRS = [
    event("t1", customer_id=ID[1:], recipient=EMAIL[1:]),
    event("t2", identifiers={"id": "", "email": None}, recipients=[{"device_id": 2}]),
    event("t3", recipient=ID, variables={"campaign": {"id": ID}}),
    b"no JSON",
    event("", customer_id="other"),
]
MINE_IN_ARRAYS = [
    b"["
    + b", ".join([event("a1", n=0.10), MINE[0].replace(b"mine-1", b"mine-a2"), THEIRS[4], b"7"])
    + b"]",
    b"[" + MINE[3].replace(b"mine-4", b"mine-a3") + b"]",
]


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


def run_job(installation: Erasing) -> bool:
    """Run what the schedule runs every hour."""
    installation.warehouse.target.close()
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            loaded.resolve_job_def("landing_upkeep_job")
            .execute_in_process(instance=instance)
            .success
        )


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


def test_while_the_receiver_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in its spool is waited for; every delivery is answered with 200, before and after."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        erasing = Erasing(*parts)
        house = erasing.warehouse
        token = erasing.registry.generate_url(erasing.registry.find(SCHEMA)).token
        with running_receiver(tmp_path) as receiver:
            for body in (*MINE, THEIRS[0]):
                assert receiver.post(token, body).status_code == 200
            found = erasing.before()
            assert (found["landing"], found["data"]) == (len(MINE), 0)
            assert traces(house.landing, EMAIL, "mine-") == []
            assert receiver.post(token, MINE[0]).status_code == 200
            assert receiver.post(token, THEIRS[1]).status_code == 200
            wait_landed(house.landing, SCHEMA, len(MINE) + 3)
        house.load()
        assert set(house.events()) == {"t1", "t2"}
        erasing.check()
        assert run_job(erasing)
        assert traces(tmp_path, EMAIL, "mine-") == []


def test_killed_at_any_point_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the same command, or the hourly job: the person is gone, and nobody else."""
    url = f"duckdb:///{tmp_path / 'origin' / 'w.duckdb'}"
    monkeypatch.setenv("CUSTOMERIO_DUCKDB_PUBLISH_SECONDS", "0")
    with installed(tmp_path / "origin", url, monkeypatch) as parts:
        origin = Erasing(*parts)
        land_hour(origin.warehouse.landing, [*MINE[:2], THEIRS[0]])
        origin.warehouse.next_offset["w0"] = 3
        origin.warehouse.land(*MINE_IN_ARRAYS, MINE[11], signatures=["unchecked", "invalid", "off"])
        origin.warehouse.load()
        origin.warehouse.land(MINE[4], THEIRS[1])
    command = [sys.executable, "-m", "tests.killed_erasures", str(tmp_path), ID, EMAIL]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT)
    copies = [path for path in sorted(tmp_path.iterdir()) if path.name != "origin"]
    assert int(ended.stdout) == len(copies) - 1 > 10
    unfinished = 0
    for at, copy in enumerate(copies):
        monkeypatch.setenv("CUSTOMERIO_HOME", str(copy))
        monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", f"duckdb:///{copy / 'w.duckdb'}")
        with closing(Registry.open(f"sqlite:///{copy / 'registry.sqlite'}")) as registry:
            house = Warehouse(copy, f"duckdb:///{copy / 'w.duckdb'}")
            killed = Erasing(house, registry)
            unfinished += bool(traces(copy, EMAIL, "mine-"))
            house.load()
            is_remembered = bool(Erasures(house.landing, SCHEMA).read())
            if at % 4 and is_remembered:
                finish_erasures(house.target, house.landing, SCHEMA)
            else:
                killed.erase()
            assert traces(copy, EMAIL, "mine-") == []
            assert set(house.events()) == {"t1", "t2", "a1"}
            assert len(house.rejected()) == 2
            found = account(house.target, house.landing, SCHEMA)
            assert (found.gaps, found.landed, found.erased) == ([], 8, 5)
            house.target.close()
    assert 0 < unfinished < len(copies)


_people = st.sampled_from("pqr")
_events = st.builds(
    lambda person, number, where: (
        person,
        event(
            f"{person}{number}" if number else "",
            **(
                {"recipient": f"{person}@mail.example"}
                if where == "recipient"
                else {"identifiers": {where: person if where == "id" else f"{person}@mail.example"}}
            ),
        ),
    ),
    _people,
    st.integers(0, 3),
    st.sampled_from(["id", "email", "recipient"]),
)
_deliveries = st.lists(_events, min_size=1, max_size=3)
_steps = st.lists(
    st.one_of(
        _deliveries, _deliveries, _people, st.sampled_from(["load", "compact", "upkeep", "rebuild"])
    ),
    min_size=2,
    max_size=8,
)


@pytest.mark.parametrize("bulk_deliveries", [1, 10**9], ids=["in bulk", "one by one"])
@settings(
    deadline=None,
    phases=[Phase.generate],  # each example is an installation: shrinking takes minutes
    max_examples=4,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=_steps)
def test_the_table_is_as_if_the_person_had_never_been(
    steps: list[object], bulk_deliveries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is erased when, with loads and all else in between."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", bulk_deliveries)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with installed(home, f"duckdb:///{home / 'w.duckdb'}", monkeypatch) as parts:
            erasing = Erasing(*parts)
            house = erasing.warehouse
            gone: set[str] = set()
            landed: list[tuple[str, bytes]] = []
            for step in steps:
                if isinstance(step, list):
                    landed += step
                    bodies = [body for _, body in step]
                    array = b"[" + b",".join(bodies) + b"]"
                    house.land(*(bodies if len(bodies) < 3 else [array]))
                elif step == "load":
                    house.load()
                elif step == "compact":
                    compact(house.landing, SCHEMA, now=HOUR.replace(year=2100))
                elif step == "upkeep":
                    finish_erasures(house.target, house.landing, SCHEMA)
                elif step == "rebuild":
                    assert erasing.run("rebuild", SCHEMA).exit_code == 0
                else:
                    gone.add(str(step))
                    erasing.erase("--customer-id", str(step), "--email", f"{step}@MAIL.example")
            house.load()
            finish_erasures(house.target, house.landing, SCHEMA)
            left = [json.loads(body)["event_id"] for person, body in landed if person not in gone]
            if landed:
                assert set(house.events()) == {event_id for event_id in left if event_id}
                assert len(house.rejected()) == left.count("")
                erasing.check()
            for person in gone:
                assert traces(home, f"{person}@mail") == []
