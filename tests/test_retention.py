"""Retention: old days go when they are loaded for good, and everything still adds up."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import LandingError, SettingsError
from customerio_pipeline.landing import expiry
from customerio_pipeline.landing.expiry import expire
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA
from tests.landed_hours import HOUR, land_hour, names, rows_outside

OLD = f"integration={SCHEMA}/date=2026-01-01"


@pytest.fixture
def installation(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Give one of each kind that keeps landing for a week, with an old day and today loaded."""
    monkeypatch.setenv("CUSTOMERIO_LANDING_RETENTION_DAYS", "7")
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        land_hour(
            warehouse.landing, [b'{"event_id":"e1","v":1}', b'{"event_id":"e2"}'], [b"no JSON"]
        )
        warehouse.next_offset["w0"] = 3
        warehouse.load_bodies(b'{"event_id":"e1","v":2}', b'{"event_id":"e3"}')
        yield Installation(warehouse, registry)


def expired(installation: Installation) -> dict[str, object]:
    """Let the command remove what is old."""
    result = installation.run("expire", "--json")
    assert result.exit_code == 0, result.output
    [found] = json.loads(result.stdout)
    return dict(found)


def test_old_days_go_and_everything_adds_up(installation: Installation) -> None:
    """Rows stay, verify counts what expired, a second time there is nothing to do."""
    landing = installation.warehouse.landing
    rows = installation.warehouse.events()
    assert expired(installation)["deliveries"] == 3
    assert not (landing / OLD).exists()
    assert [row[1] for row in rows_outside(landing)] == [3, 4]

    assert installation.warehouse.events() == rows
    verified = installation.run("verify", "--deep")
    assert verified.exit_code == 0, verified.output
    assert "5 landed = 5 loaded + 0 held + 0 waiting; 3 of them expired" in verified.output
    assert "content     2 rows compared" in verified.output
    assert expired(installation)["days"] == []
    [found] = json.loads(installation.run("trace", "e2", "--json").stdout)
    assert (found["deliveries"], found["row"]["event_id"]) == ([], "e2")
    installation.warehouse.load_bodies(b'{"event_id":"e4"}')
    assert installation.run("verify").exit_code == 0


def test_all_of_it_may_expire(installation: Installation) -> None:
    """A source that fell silent."""
    landing = installation.warehouse.landing
    [today] = [day for day in landing.glob("*/date=*") if day.name != "date=2026-01-01"]
    today.rename(today.with_name("date=2026-01-02"))
    assert expired(installation)["deliveries"] == 5
    assert installation.run("verify", "--deep").exit_code == 0


def test_rebuild_refuses_until_the_days_are_back(
    installation: Installation, tmp_path: Path
) -> None:
    """It would drop rows."""
    landing = installation.warehouse.landing
    shutil.copytree(landing / OLD, tmp_path / "backup")
    expired(installation)
    for option in ([], ["--check"]):
        refused = installation.run("rebuild", SCHEMA, *option)
        assert isinstance(refused.exception, LandingError)
        assert "3 deliveries of stitch_customerio were removed" in str(refused.exception)
    assert len(installation.warehouse.events()) == 3

    shutil.copytree(tmp_path / "backup", landing / OLD)
    assert installation.run("rebuild", SCHEMA).exit_code == 0
    verified = installation.run("verify", "--deep")
    assert verified.exit_code == 0, verified.output
    assert "expired" not in verified.output


def test_a_warehouse_that_was_lost_is_said_to_lack_rows(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    """Loads take what is left, with a warning, and verify names the gap."""
    expired(installation)
    installation.warehouse.change("DROP SCHEMA {s} CASCADE")
    installation.warehouse.load()
    assert "3 deliveries were loaded and removed from landing" in caplog.text
    result = installation.run("verify")
    assert result.exit_code == 1
    assert "The offsets 0 to 2 of w0 were loaded and removed from landing" in result.output


def test_what_waits_or_is_held_stays(installation: Installation) -> None:
    """With all of its day; and is gone once it is loaded."""
    house = installation.warehouse
    [held] = [house.land(b'{"event_id":"e5"}', signatures=["invalid"])]
    moved = held._replace(day=HOUR.date(), hour=6)
    moved.path(house.landing).parent.mkdir()
    held.path(house.landing).rename(moved.path(house.landing))

    [reason] = expired(installation)["kept"]  # type: ignore[misc]
    assert "not loaded" in reason
    house.load()
    [reason] = expired(installation)["kept"]  # type: ignore[misc]
    assert "no signing key signed" in reason
    release(house.landing, SCHEMA, {"w0": OffsetSet([(5, 5)])})
    assert "not loaded" in str(expired(installation)["kept"])
    house.load()
    assert (house.landing / OLD).exists()
    assert expired(installation)["deliveries"] == 4
    assert installation.run("verify", "--deep").exit_code == 0


def test_gaps_before_what_expired_are_still_gaps(installation: Installation) -> None:
    """Of a writer of which nothing else is left, too."""
    house = installation.warehouse
    land_hour(house.landing, [b"x"], writer="w1", first=4)
    house.load()
    expired(installation)
    assert "The offsets 0 to 3 of w1 are in no landing file" in installation.run("verify").output


def test_killed_it_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it had done of its three steps."""
    settled = {"w0": OffsetSet([(0, 9)])}

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    for step in ("sync_folder", "write_offsets", "shutil.rmtree"):
        landing = tmp_path / step
        land_hour(landing, [b"a"], [b"b"])
        with monkeypatch.context() as patched:
            patched.setattr(f"{expiry.__name__}.{step}", die)
            with pytest.raises(KilledError):
                expire(landing, SCHEMA, settled, {}, days=7)
        files = LandingListing(landing, SCHEMA).files()
        known = landed_offsets(files, expiry.Expirations(landing, SCHEMA).offsets())
        assert known == {"w0": OffsetSet([(0, 1)])}
        expire(landing, SCHEMA, settled, {}, days=7)
        assert expiry.Expirations(landing, SCHEMA).gone([]) == known
        assert [name for name in names(landing) if not name.endswith(".json")] == [
            ".compaction.lock",
            "_expired",
        ]


def test_what_is_no_landing_file_keeps_its_day(tmp_path: Path) -> None:
    """Somebody put it there."""
    land_hour(tmp_path, [b"a"])
    (tmp_path / OLD / "notes.txt").write_text("mine")
    found = expire(tmp_path, SCHEMA, {"w0": OffsetSet([(0, 0)])}, {}, days=7)
    assert (found.days, len(found.kept)) == ([], 1)
    assert "notes.txt" in found.kept[0]


def test_days_are_kept_as_long_as_was_said(tmp_path: Path) -> None:
    """A day counts as old when so many whole ones lie after it."""
    land_hour(tmp_path, [b"a"])
    settled = {"w0": OffsetSet([(0, 0)])}
    assert not expire(tmp_path, SCHEMA, settled, {}, days=7, now=HOUR.replace(day=8)).days
    assert expire(tmp_path, SCHEMA, settled, {}, days=7, now=HOUR.replace(day=9)).days


def test_without_the_setting_nothing_expires(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the default; the job compacts only."""
    for value in ("off", None):
        if value is None:
            monkeypatch.delenv("CUSTOMERIO_LANDING_RETENTION_DAYS")
        else:
            monkeypatch.setenv("CUSTOMERIO_LANDING_RETENTION_DAYS", value)
        assert isinstance(installation.run("expire").exception, SettingsError)
        run_job(installation)
    assert (installation.warehouse.landing / OLD).exists()


def test_the_hourly_job_does_it(installation: Installation) -> None:
    """With nobody's help."""
    run_job(installation)
    assert not (installation.warehouse.landing / OLD).exists()


def run_job(installation: Installation) -> None:
    """Run what the schedule runs."""
    installation.warehouse.target.close()
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    with dg.DagsterInstance.ephemeral() as instance:
        job = loaded.resolve_job_def("landing_upkeep_job")
        assert job.execute_in_process(instance=instance).success
