"""``erase`` in the midst of it all: a running receiver, ``kill -9``, any order of steps."""

import json
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from customerio_pipeline.landing.compaction import alone, compact
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.loading import staging
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.verifying.conservation import account
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
    take_returned_out,
    traces,
)
from tests.installation import installed
from tests.landed_bodies import SCHEMA, Warehouse
from tests.landed_hours import HOUR, land_hour
from tests.running_receiver import running_receiver, wait_landed

PROJECT = Path(__file__).parent.parent


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
        before = erasing.check()["erased"]
        # The load that met it had it taken out of landing, without waiting for the hourly job.
        assert traces(house.landing, EMAIL, "mine-")
        assert take_returned_out(erasing)
        assert traces(tmp_path, EMAIL, "mine-") == []
        assert erasing.check()["erased"] == before + 1
        assert not take_returned_out(erasing)


@pytest.mark.parametrize("bulk_deliveries", [1, 1000])
def test_what_comes_again_is_taken_out_of_the_files_that_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bulk_deliveries: int
) -> None:
    """Alone and in arrays, in both ways of staging; other files stay untouched."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", bulk_deliveries)
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        erasing = Erasing(*parts)
        house = erasing.warehouse
        house.land(*MINE, *THEIRS)
        house.load()
        erasing.erase()
        files = [house.land(THEIRS[0]), house.land(*MINE[:9], *MINE_IN_ARRAYS, THEIRS[1])]
        untouched = files[0].path(house.landing)
        made = untouched.stat().st_ino
        house.load()
        before = erasing.check()["erased"]
        with alone(house.landing, SCHEMA):
            assert take_returned_out(erasing)
        # Who compacts comes first; it is asked for until it is done.
        assert traces(house.landing, EMAIL, "mine-")
        assert take_returned_out(erasing)
        assert traces(tmp_path, EMAIL, "mine-") == []
        assert untouched.stat().st_ino == made
        # The first of the arrays has events of others.
        assert erasing.check()["erased"] == before + 9 + 1
        assert not take_returned_out(erasing)
        assert "t1" in house.events()


def test_the_hourly_job_does_what_the_quick_one_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load may have been killed before it noted what it met; afterwards nothing is asked for."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        erasing = Erasing(*parts)
        house = erasing.warehouse
        house.load_bodies(MINE[0])
        erasing.erase()
        house.load_bodies(MINE[0])
        assert run_job(erasing)
        assert traces(tmp_path, "mine-") == []
        assert not take_returned_out(erasing)


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
            found = account(house.target, house.landing, house.landing.parent / "spool", SCHEMA)
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
