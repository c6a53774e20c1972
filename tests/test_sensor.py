"""The load sensor: its planner alone, and its ticks against a real instance and warehouse."""

import itertools
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import msgspec
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import freeze_time

from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.target import SchemaState
from customerio_pipeline.orchestration.keys import SCHEMA_TAG, landing_key
from customerio_pipeline.orchestration.sensor_plan import (
    REPORT_SECONDS,
    Cursor,
    is_settled,
    plan_reports,
    plan_run,
)
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.warehouse.duckdb_damage import note_suspicion
from tests.dagster_shop import Shop, failure_of, held_by_another_process, opened_shop
from tests.damaged_warehouses import DAMAGE, garble_blocks_of_values
from tests.landed_events import WRITER, event

NOW = 1_800_000_000.0
DAY = date(2027, 1, 15)


def _file(first: int, last: int, writer: str = WRITER, day: date = DAY) -> LandingFile:
    return LandingFile("shop", day, 8, writer, first, last)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield an installation of the test's own."""
    with opened_shop(tmp_path, monkeypatch) as shop:
        yield shop


class TestPlannedReports:
    """Which landing files a tick reports."""

    def test_new_files_are_reported_once_by_day(self) -> None:
        """Files are grouped by their folder's day, counted, and not reported again."""
        yesterday = DAY - timedelta(days=1)
        files = [_file(0, 9, day=yesterday), _file(10, 14), _file(0, 1, "bbbbbbbbbb")]

        cursor, reports = plan_reports(Cursor(), files, NOW)
        _, again = plan_reports(cursor, files, NOW + 2 * REPORT_SECONDS)

        assert [yesterday, DAY] == [report.day for report in reports]
        assert [report.deliveries for report in reports] == [10, 7]
        assert reports[1].last_offsets == {WRITER: 14, "bbbbbbbbbb": 1}
        assert again == []

    def test_steady_traffic_is_reported_now_and_then(self) -> None:
        """Each report stays in Dagster's storage for ever, so files of a minute share one."""
        cursor, _ = plan_reports(Cursor(), [_file(0, 0)], NOW)
        files = [_file(0, 0), _file(1, 1), _file(2, 2)]

        waiting, none = plan_reports(cursor, files, NOW + REPORT_SECONDS - 1)
        _, reports = plan_reports(waiting, files, NOW + REPORT_SECONDS)

        assert none == []
        assert [report.deliveries for report in reports] == [2]

    def test_a_file_that_appears_late_is_reported_too(self) -> None:
        """The cursor knows which offsets were reported, not only the greatest."""
        cursor, _ = plan_reports(Cursor(), [_file(5, 9)], NOW)

        _, reports = plan_reports(cursor, [_file(0, 4), _file(5, 9)], NOW + REPORT_SECONDS)

        assert [(file.first, file.last) for file in reports[0].files] == [(0, 4)]

    def test_the_cursor_survives_its_text(self) -> None:
        """What one tick stores is what the next reads; anything else starts anew."""
        cursor, _ = plan_reports(Cursor(), [_file(0, 4), _file(9, 9)], NOW)

        assert cursor == Cursor.from_text(cursor.to_text())
        assert Cursor() == Cursor.from_text(None)
        assert Cursor() == Cursor.from_text("7")


class TestPlannedRuns:
    """When a tick requests a run."""

    def test_nothing_landed_is_nothing_to_do(self) -> None:
        """An empty landing zone asks for no run, even when the warehouse cannot be read."""
        assert plan_run(Cursor(), [], {}, NOW).run_key is None
        assert plan_run(Cursor(), [], None, NOW).run_key is None

    def test_what_is_loaded_needs_no_run(self) -> None:
        """Landed offsets that the warehouse holds are no reason for a run."""
        loaded = {WRITER: OffsetSet([(0, 9)])}

        assert plan_run(Cursor(), [_file(0, 9)], loaded, NOW).run_key is None
        assert plan_run(Cursor(), [_file(0, 9), _file(10, 10)], loaded, NOW).run_key is not None

    def test_a_hole_among_loaded_offsets_needs_a_run(self) -> None:
        """Not only the greatest offset counts."""
        loaded = {WRITER: OffsetSet([(0, 3), (6, 9)])}

        assert plan_run(Cursor(), [_file(0, 3), _file(4, 5), _file(6, 9)], loaded, NOW).run_key

    def test_failing_runs_are_spaced_out_up_to_five_minutes(self) -> None:
        """As long as nothing gets loaded the pause doubles, with new files arriving too."""
        cursor, requested = Cursor(), []
        for second in range(0, 1500, 5):
            files = [_file(0, second)]
            decision = plan_run(cursor, files, {}, NOW + second)
            cursor = decision.cursor
            if decision.run_key:
                requested.append(second)
        pauses = [b - a for a, b in itertools.pairwise(requested)]

        assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]

    def test_every_run_key_is_new(self) -> None:
        """A failed run's key is not asked for again; Dagster would ignore it."""
        cursor, keys = Cursor(), []
        for hour in range(5):
            decision = plan_run(cursor, [_file(0, 9)], {}, NOW + 3600 * hour)
            cursor = decision.cursor
            keys.append(decision.run_key)

        assert None not in keys
        assert len(set(keys)) == 5

    def test_a_repeated_tick_asks_for_the_same_run(self) -> None:
        """If a tick's cursor was lost, its run is not requested a second time."""
        decisions = [plan_run(Cursor(), [_file(0, 9)], {}, NOW + late) for late in (0, 7)]

        assert decisions[0].run_key == decisions[1].run_key

    def test_progress_ends_the_back_off(self) -> None:
        """A run that loaded something shows that the next can follow at once."""
        cursor = Cursor()
        for second in (0, 5, 15):
            cursor = plan_run(cursor, [_file(0, 9)], {}, NOW + second).cursor
        loaded = {WRITER: OffsetSet([(0, 4)])}

        assert plan_run(cursor, [_file(0, 9)], {}, NOW + 16).run_key is None
        assert plan_run(cursor, [_file(0, 9)], loaded, NOW + 16).run_key is not None

    def test_a_warehouse_that_comes_back_is_used_at_once(self) -> None:
        """Runs are requested while it cannot be read, ever more seldom, then immediately."""
        cursor = Cursor()
        for second in (0, 5, 15, 35, 75):
            decision = plan_run(cursor, [_file(0, 9)], None, NOW + second)
            assert decision.run_key is not None
            cursor = decision.cursor

        assert plan_run(cursor, [_file(0, 9)], None, NOW + 76).run_key is None
        assert plan_run(cursor, [_file(0, 9)], {}, NOW + 76).run_key is not None

    def test_an_idle_integration_needs_no_readable_warehouse(self) -> None:
        """Somebody who holds the warehouse for hours causes no failing runs if nothing is new."""
        loaded = {WRITER: OffsetSet([(0, 9)])}
        cursor = plan_run(Cursor(), [_file(0, 9)], loaded, NOW).cursor

        assert plan_run(cursor, [_file(0, 9)], None, NOW + 5).run_key is None
        assert plan_run(cursor, [_file(0, 9), _file(10, 10)], None, NOW + 5).run_key is not None

    def test_an_idle_integration_asks_the_warehouse_once_a_minute(self) -> None:
        """Opening it every 5 s for each of many integrations would be a steady load."""
        files = [_file(0, 9)]
        loaded = {WRITER: OffsetSet([(0, 9)])}
        cursor = plan_run(Cursor(), files, loaded, NOW).cursor

        assert not is_settled(Cursor(), files, NOW)
        assert is_settled(cursor, files, NOW + 55)
        assert not is_settled(cursor, files, NOW + 60)
        assert not is_settled(cursor, [*files, _file(10, 10)], NOW + 5)

    def test_a_release_needs_a_run_at_once(self) -> None:
        """What was held is pending again, although everything has settled a moment ago."""
        files = [_file(0, 9)]
        released = {WRITER: OffsetSet([(3, 3)])}
        state = SchemaState({WRITER: OffsetSet([(0, 9)])}, (), {}, held=released)
        cursor = plan_run(Cursor(), files, state.settled({}), NOW).cursor

        assert is_settled(cursor, files, NOW + 5)
        assert not is_settled(cursor, files, NOW + 5, released)
        assert plan_run(cursor, files, state.settled(released), NOW + 5, released).run_key

    def test_a_lost_warehouse_is_loaded_again(self) -> None:
        """What was loaded once and is not there any more is pending, under a new key."""
        first = plan_run(Cursor(), [_file(0, 9)], {}, NOW)
        loaded = {WRITER: OffsetSet([(0, 9)])}
        settled = plan_run(first.cursor, [_file(0, 9)], loaded, NOW + 20)
        again = plan_run(settled.cursor, [_file(0, 9)], {}, NOW + 25)

        assert again.run_key is not None
        assert first.run_key != again.run_key


class TestTicks:
    """Ticks against a real registry, landing zone, warehouse and Dagster instance."""

    def test_new_deliveries_are_reported_and_loaded_once(self, shop: Shop) -> None:
        """A tick reports the landing partition and asks for one run; after it all is quiet."""
        assert not shop.tick().run_requests

        shop.land(event("a"), event("b"))
        result = shop.tick()
        assert result.run_requests
        run = shop.run(result.run_requests[0])

        (landed,) = result.asset_events
        assert landing_key("shop") == landed.asset_key
        assert datetime.now(UTC).date().isoformat() == landed.partition
        assert landed.metadata["deliveries"].value == 2
        assert run.success
        assert {SCHEMA_TAG: "shop"}.items() <= run.dagster_run.tags.items()
        assert shop.event_ids() == ["a", "b"]
        quiet = shop.tick()
        assert not quiet.run_requests
        assert list(quiet.asset_events) == []

    def test_no_second_run_while_one_is_under_way(self, shop: Shop) -> None:
        """A waiting run of the schema will load what has just come too."""
        shop.land(event("a"))
        run = shop.instance.create_run_for_job(shop.job, tags=shop.job.tags)

        result = shop.tick()

        assert not result.run_requests
        assert run.run_id[:8] in str(result.skip_reason)

    def test_a_run_whose_process_vanished_does_not_block(self, shop: Shop) -> None:
        """After a power cut Dagster believes in a run that nobody executes any more."""
        shop.land(event("a"))
        with freeze_time(datetime.now(UTC) - timedelta(minutes=3)):
            run = shop.instance.create_run_for_job(shop.job, tags=shop.job.tags)
            shop.instance.report_dagster_event(
                DagsterEvent(DagsterEventType.RUN_START.value, shop.job.name), run.run_id
            )
        assert shop.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTED

        result = shop.tick()

        assert shop.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.FAILURE
        assert result.run_requests

    def test_a_paused_integration_lands_and_waits(self, shop: Shop) -> None:
        """Pausing and resuming take effect at the next tick, without a reload."""
        shop.land(event("a"))
        with closing(Registry.open(shop.settings.registry)) as registry:
            registry.pause(shop.integration)
            paused = shop.tick()
            registry.resume(shop.integration)
            resumed = shop.tick()

        assert not paused.run_requests
        assert "is paused" in str(paused.skip_reason)
        assert len(paused.asset_events) == 1
        assert resumed.run_requests

    def test_a_locked_warehouse_fails_with_a_sentence_then_everything_is_loaded(
        self, shop: Shop
    ) -> None:
        """The run says who holds the warehouse; the next run loads what both should have."""
        shop.land(event("a"))
        with held_by_another_process(shop.warehouse_file) as holder:
            request = shop.tick().run_requests
            assert request
            failed = shop.run(request[0])
            shop.land(event("b"), first=1)
            waiting = shop.tick()

        assert not failed.success
        description = failure_of(failed)
        assert f"held by process {holder}" in description
        assert "Traceback" not in description
        assert not waiting.run_requests
        assert "the next in" in str(waiting.skip_reason)
        request = shop.tick().run_requests
        assert request
        assert shop.run(request[0]).success
        assert shop.event_ids() == ["a", "b"]

    @pytest.mark.parametrize("how", ["zeros", "suspected"])
    def test_a_lost_warehouse_is_made_again_without_a_person(self, shop: Shop, how: str) -> None:
        """Nothing new arrives; the look once a minute finds it, and the run says what it did."""
        shop.land(event("a"), event("b"))
        shop.run()
        assert not shop.tick().run_requests
        if how == "suspected":
            garble_blocks_of_values(shop.warehouse_file)
            note_suspicion(shop.warehouse_file)
        else:
            DAMAGE[how](shop.warehouse_file)
        assert not shop.tick().run_requests
        settled = Cursor.from_text(shop.cursor)
        earlier = msgspec.structs.replace(settled, settled_at=settled.settled_at - 61)
        shop.cursor = earlier.to_text()

        request = shop.tick().run_requests
        assert request
        run = shop.run(request[0])

        assert run.success
        assert shop.event_ids() == ["a", "b"]
        [aside] = shop.warehouse_file.parent.glob("*.damaged-*")
        warnings = [
            entry.user_message
            for entry in shop.instance.all_logs(run.dagster_run.run_id)
            if entry.level == logging.WARNING
        ]
        assert [aside.name in warning for warning in warnings] == [True]
        assert not shop.tick().run_requests
