"""The checks of every hour: conservation, and what is unlike the days before."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from customerio_pipeline.definitions import defs, integration_definitions
from customerio_pipeline.orchestration.hourly_checks import hourly_run
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.simulator.events import generate
from tests.dagster_shop import Shop, opened_shop
from tests.landed_events import event

NOW = datetime.now(UTC)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str) -> Iterator[Shop]:
    """Yield an installation of the test's own, on each kind of warehouse."""
    with opened_shop(tmp_path, monkeypatch, warehouse_url) as shop:
        yield shop


def hourly(shop: Shop) -> dict[str, dg.AssetCheckEvaluation]:
    """Make the checks as the schedule's run does."""
    definitions = dg.Definitions.merge(shop.definitions, hourly_run(["shop"]))
    job = definitions.resolve_job_def("hourly_checks_job")
    result = job.execute_in_process(instance=shop.instance)
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def age(shop: Shop, days: float) -> None:
    """Move what was loaded so far into the past."""
    past = f"INTERVAL '{days * 24 * 3600} seconds'"
    shop.change_warehouse(
        f"UPDATE shop._sdc_loads SET batched_at = batched_at - {past},"  # noqa: S608  a test's constant
        f" received_from = received_from - {past}, received_to = received_to - {past}"
    )
    shop.change_warehouse(f"UPDATE shop.data SET _sdc_received_at = _sdc_received_at - {past}")  # noqa: S608  a test's constant
    shop.change_warehouse(f"UPDATE shop._sdc_columns SET added_at = added_at - {past}")  # noqa: S608  a test's constant


def happened(event_id: str, metric: str = "sent", delivery: str = "d1", **more: object) -> bytes:
    """Return an event of now."""
    seconds = int(datetime.now(UTC).timestamp())
    return event(
        event_id,
        metric=metric,
        object_type="email",
        timestamp=seconds,
        data={"delivery_id": delivery},
        **more,
    )


def test_simulated_traffic_is_usual(shop: Shop) -> None:
    """All of them pass, before the first event, too; loads do not make them."""
    assert all(each.passed for each in hourly(shop).values())
    events = generate(1, malformed=0, now=lambda: datetime.now(UTC).timestamp())
    shop.land(*(next(events).body for _ in range(300)))
    made = {each.check_name for each in shop.run().get_asset_check_evaluations()}

    found = hourly(shop)

    assert [name for name, each in found.items() if not each.passed] == []
    assert len(found) == 7
    assert not made & found.keys()
    assert "300 landed = 300 loaded" in str(found["nothing_missing"].description)


def test_what_is_missing_is_an_error(shop: Shop) -> None:
    """With the offsets that were lost."""
    shop.land(event("a"))
    lost = shop.land(event("b"), event("c"), first=1)
    shop.run()
    lost.unlink()
    check = hourly(shop)["nothing_missing"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "The offsets 1 to 2 of aaaaaaaaaa were loaded" in str(check.description)


@pytest.mark.parametrize(
    ("windows", "passed", "severity"),
    [
        ((60, 900), False, dg.AssetCheckSeverity.WARN),
        ((20, 80), False, dg.AssetCheckSeverity.ERROR),
        ((120, 900), True, dg.AssetCheckSeverity.WARN),
    ],
)
def test_late_loads(
    shop: Shop, windows: tuple[float, float], passed: bool, severity: dg.AssetCheckSeverity
) -> None:
    """Measured from the receipt of the oldest event of each load, with two windows."""
    warn, fail = windows
    late = shop.settings.model_copy(update={"lag_warn_seconds": warn, "lag_fail_seconds": fail})
    shop.definitions = integration_definitions(late, shop.integration)
    shop.land(event("a"))
    shop.run()
    shop.change_warehouse(
        "UPDATE shop._sdc_loads SET batched_at = received_from + INTERVAL '90 seconds'"
    )
    check = hourly(shop)["loaded_soon"]
    assert (check.passed, check.severity) == (passed, severity)
    assert check.metadata["lag_p95_seconds"].value == pytest.approx(90)


@pytest.mark.parametrize(("silent_hours", "passed"), [(14, True), (16, False)])
def test_silence(shop: Shop, silent_hours: int, passed: bool) -> None:
    """Three times the longest pause of a usual day; unknown before there are three days."""
    for at in range(6):
        shop.land(event(f"e{at}"), first=at)
        shop.run()
    assert "unknown yet" in str(hourly(shop)["not_silent"].description)
    shop.change_warehouse(
        # A load every five hours, the last one `silent_hours` ago.
        "UPDATE shop._sdc_loads SET received_from = newest, received_to = newest FROM ("  # noqa: S608  a test's constant
        f"SELECT load_id AS id, now() - INTERVAL '{silent_hours} hours'"
        " - INTERVAL '5 hours' * (row_number() OVER (ORDER BY batched_at DESC) - 1) AS newest"
        " FROM shop._sdc_loads) AS moved WHERE load_id = id"
    )
    for_days = (
        "INSERT INTO shop._sdc_loads SELECT load_id || '-' || day, batched_at, run_id, files,"
        " deliveries, events, inserted, updated, duplicates, rejected,"
        " received_from - INTERVAL '25 hours' * day, received_to - INTERVAL '25 hours' * day"
        " FROM shop._sdc_loads, (VALUES (1), (2), (3), (4)) AS days (day)"
    )
    shop.change_warehouse(for_days)
    check = hourly(shop)["not_silent"]
    assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert check.metadata["usual_pause_seconds"].value == 5 * 3600


def test_new_columns_are_named(shop: Shop) -> None:
    """Undocumented ones, and those split by type; documented ones, and the first day's, are not."""
    shop.land(event("a", plan="x"))
    shop.run()
    assert hourly(shop)["known_columns"].passed
    age(shop, days=2)
    shop.land(event("b", plan=7, shoe_size=43, data={"campaign_id": 7}), first=1)
    shop.run()
    check = hourly(shop)["known_columns"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["new_columns"].value == 2
    assert "data.plan__bi" in str(check.description)
    assert "data.shoe_size" in str(check.description)


def test_undocumented_metrics_are_named(shop: Shop) -> None:
    """With the type of object that they are of."""
    shop.land(happened("a"), happened("b", metric="teleported"))
    shop.run()
    check = hourly(shop)["documented_metrics"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "Not documented: email teleported."


def test_opened_and_never_sent(shop: Shop) -> None:
    """A webhook that leaves `sent` out is told of, once the integration is a week old."""
    shop.land(happened("old"))
    shop.run()
    age(shop, days=8)
    opened = [happened(f"o{at}", "opened", f"d{at}") for at in range(2, 32)]
    shop.land(*opened, first=1)
    shop.run()
    check = hourly(shop)["sent_before_opened"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["without_sent"].value == 30
    sent = [happened(f"s{at}", "sent", f"d{at}") for at in range(2, 30)]
    shop.land(*sent, first=31)
    shop.run()
    check = hourly(shop)["sent_before_opened"]
    assert (check.passed, check.metadata["without_sent"].value) == (True, 2)


@pytest.mark.parametrize(("hours", "number"), [(1, "ahead"), (-24 * 9, "behind")])
def test_clocks_that_disagree(shop: Shop, hours: int, number: str) -> None:
    """Events of the future, and of longer ago than Customer.io retries."""
    seconds = int((NOW + timedelta(hours=hours)).timestamp())
    shop.land(*_at(seconds, range(3)), *(happened(f"n{at}") for at in range(7)))
    shop.run()
    check = hourly(shop)["clocks_agree"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata[number].value == 3


def test_the_usual_share_of_rejected_events(shop: Shop) -> None:
    """Three times as many as in the weeks before is unusual, whatever the share is."""
    shop.land(*(event(f"e{at}") for at in range(97)), *[b"nonsense"] * 3)
    shop.run()
    age(shop, days=2)
    shop.change_warehouse("UPDATE shop._sdc_loads SET events = 20000, rejected = 400")
    shop.land(*(event(f"f{at}") for at in range(95)), *[b"nonsense"] * 5, first=100)
    assert _rejected_share(shop).passed  # 5 %, and 2 % are usual
    shop.land(*[b"nonsense"] * 5, first=200)
    check = _rejected_share(shop)
    assert (check.passed, check.metadata["usual_share"].value) == (False, pytest.approx(0.02))


def test_a_paused_integration_is_not_told_of(shop: Shop) -> None:
    """Its silence is wanted; that nothing is missing is proven all the same."""
    shop.land(happened("a", metric="teleported"))
    shop.run()
    with closing(Registry.open(shop.settings.registry)) as registry:
        registry.pause(shop.integration)
    found = hourly(shop)
    assert found["documented_metrics"].passed
    assert "1 landed = 1 loaded" in str(found["nothing_missing"].description)


def test_the_schedule_runs_after_installation(shop: Shop) -> None:
    """For every integration, without a click."""
    repository = defs().get_repository_def()
    schedule = repository.get_schedule_def("hourly_checks_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    job = repository.get_job("hourly_checks_job")
    checks = {key.name for key in job.asset_layer.asset_graph.asset_check_keys}
    assert "nothing_missing" in checks


def _rejected_share(shop: Shop) -> dg.AssetCheckEvaluation:
    evaluations = shop.run().get_asset_check_evaluations()
    return next(each for each in evaluations if each.check_name == "rejected_share")


def _at(seconds: int, numbers: Sequence[int]) -> list[bytes]:
    return [event(f"x{at}", timestamp=seconds) for at in numbers]
