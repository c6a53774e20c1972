"""Runs that load: what they do to the tables, and what they tell Dagster."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.orchestration import turns
from customerio_pipeline.orchestration.drain_run import DrainConfig
from customerio_pipeline.orchestration.keys import (
    data_key,
    landing_key,
    load_op_name,
    rejected_key,
    view_key,
)
from customerio_pipeline.registry.registry import Registry
from tests.dagster_shop import Shop, failure_of, opened_shop
from tests.landed_events import PERSONAL, event

DATA = data_key("shop")
REJECTED = rejected_key("shop")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str) -> Iterator[Shop]:
    """Yield an installation of the test's own."""
    with opened_shop(tmp_path, monkeypatch, warehouse_url) as shop:
        yield shop


def _metadata(shop: Shop, key: dg.AssetKey) -> dict[str, object]:
    """Return the metadata of the latest materialization, as the asset's page shows it."""
    event = shop.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def _wait_for_row(shop: Shop, event_id: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(WarehouseError):  # not there yet, or just being written
            if event_id in shop.event_ids():
                return
        time.sleep(0.02)
    raise AssertionError(f"{event_id} was not loaded")


def test_both_tables_are_loaded_with_metadata_for_people(shop: Shop) -> None:
    """One run materializes data and _sdc_rejected and says what it did."""
    shop.land(event("a"), event("b"), event("a"), b"nonsense", b'{"a"')

    result = shop.run()

    assert result.success
    data = _metadata(shop, DATA)
    assert {
        "deliveries_read": 5,
        "events_read": 5,
        "rows_inserted": 2,
        "rows_updated": 0,
        "duplicates_absorbed": 1,
        "events_rejected": 2,
        "files": 1,
        "batches": 1,
        "dagster/row_count": 2,
    }.items() <= data.items()
    assert data["lag_seconds"] >= 0
    assert data["seconds"] > 0
    columns = {column.name: column.type for column in data["dagster/column_schema"].columns}
    assert columns["event_id"] == "text"
    assert columns["data__campaign_id"] == "bigint"
    assert "data__campaign_id" in data["new_columns"]
    assert "| Rows inserted | 2 |" in data["run_totals"]
    rejected = _metadata(shop, REJECTED)
    assert rejected["dagster/row_count"] == 2
    # Without their places, which would make a line of each.
    assert "| body is not JSON: expected a value | 1 |" in rejected["reasons"]
    assert "| body is not JSON: expected ':' | 1 |" in rejected["reasons"]


def test_columns_tell_what_they_are_and_where_they_come_from(shop: Shop) -> None:
    """From landing to the table, and from the table to the views, of what there is."""
    shop.land(event("a", plan="x"), event("b", plan=7))
    shop.run()

    data = _metadata(shop, DATA)
    said = {each.name: each.description for each in data["dagster/column_schema"].columns}
    assert said["data__campaign_id"] == "the campaign, where one sent the message"
    assert said["plan"] == "the key plan"
    assert said["plan__bi"] == "values of plan that are bigint"
    sources = data["dagster/column_lineage"].deps_by_column
    assert sources["plan"] == [dg.TableColumnDep(landing_key("shop"), "body")]
    assert [each.column_name for each in sources["_sdc_sequence"]] == ["_sdc_sequence"]
    view = _metadata(shop, view_key("shop", "events"))["dagster/column_lineage"].deps_by_column
    assert [each.column_name for each in view["customer_id"]] == ["data__identifiers__id"]
    assert {each.asset_key for each in view["occurred_at"]} == {DATA}


def test_the_preview_shows_no_personal_data(shop: Shop) -> None:
    """Dagster keeps events for long and shows them to everybody: no person is in any of them."""
    shop.land(event("a"), event("b"), f'{{"recipient": "{PERSONAL}"}}'.encode())
    shop.run()

    preview = str(_metadata(shop, DATA)["newest_rows"])
    stored = "".join(
        repr(entry)
        for run in shop.instance.get_runs()
        for entry in shop.instance.all_logs(run.run_id)
    )

    assert "| b | email | opened | 1700000000 | 7 |" in preview
    assert "newest_rows" in stored
    assert PERSONAL not in stored
    assert "007" not in preview


def test_cells_of_the_preview_cannot_be_markup(shop: Shop) -> None:
    """An event_id comes from outside and may hold anything."""
    shop.land(event("a|b\n<script>[x](http://y)"), event("z" * 100))
    shop.run()

    preview = str(_metadata(shop, DATA)["newest_rows"])

    assert "a\\|b \\<script\\>\\[x\\](http" in preview
    assert "z" * 39 + "…" in preview
    assert len(preview.splitlines()) == 4


def test_one_table_alone_can_be_materialized(shop: Shop) -> None:
    """Selecting only data loads both tables, for they belong together, and says so of both."""
    shop.land(event("a"), b"nonsense")

    result = shop.run(select=[DATA])

    assert result.success
    assert shop.event_ids() == ["a"]
    assert _metadata(shop, DATA)["dagster/row_count"] == 1
    assert _metadata(shop, REJECTED)["events_rejected"] == 1


def test_a_run_with_nothing_to_do_succeeds_and_says_so(shop: Shop) -> None:
    """Materialize pressed twice, or before the first event, is no failure."""
    assert shop.run().success
    assert _metadata(shop, DATA)["result"] == "Nothing was waiting in landing."

    shop.land(event("a"))
    shop.run()
    assert shop.run().success
    again = _metadata(shop, DATA)
    assert again["result"] == "Nothing was waiting in landing."
    assert "a" in str(again["newest_rows"])
    assert again["dagster/row_count"] == 1
    assert "rows_inserted" not in again


def test_a_lingering_run_loads_what_arrives_meanwhile(shop: Shop) -> None:
    """The sensor's runs go on for some seconds: later events need no run of their own."""
    shop.land(event("a"))

    def arrive_later() -> None:
        _wait_for_row(shop, "a")
        shop.land(event("b"), first=1)

    config = DrainConfig(idle_seconds=2.0, max_seconds=60.0)
    visitor = threading.Thread(target=arrive_later)
    visitor.start()
    result = shop.run(dg.RunRequest(run_config=dg.RunConfig(ops={load_op_name("shop"): config})))
    visitor.join()

    assert result.success
    assert shop.event_ids() == ["a", "b"]
    reported = [
        materialization.metadata["rows_inserted"].value
        for materialization in result.asset_materializations_for_node(load_op_name("shop"))
        if materialization.asset_key == DATA
    ]
    assert reported == [1, 1]
    assert "| Batches | 2 |" in _metadata(shop, DATA)["run_totals"]


def test_a_lingering_run_makes_room_for_one_that_waits(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of other integrations would wait in the queue for as long as this one has work."""
    monkeypatch.setattr(turns, "_SHORTEST_SECONDS", 0.0)
    monkeypatch.setattr(turns, "_LOOK_SECONDS", 0.1)
    shop.land(event("a"))
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("place"), "repository")
    other = shop.instance.create_run_for_job(
        shop.job,
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=RemoteJobOrigin(repository, "job"),
    )
    assert other.status is dg.DagsterRunStatus.QUEUED

    config = DrainConfig(idle_seconds=600.0)
    result = shop.run(dg.RunRequest(run_config=dg.RunConfig(ops={load_op_name("shop"): config})))

    assert result.success
    assert shop.event_ids() == ["a"]


def test_a_damaged_file_fails_the_run_and_keeps_nothing_else_back(shop: Shop) -> None:
    """The run names the file; what can be loaded is, and reported."""
    damaged = shop.land(event("a"), event("b"))
    shop.land(event("c"), first=2)
    damaged.write_bytes(damaged.read_bytes()[:100])

    result = shop.run()

    assert not result.success
    assert damaged.name in failure_of(result)
    assert shop.event_ids() == ["c"]
    assert _metadata(shop, DATA)["rows_inserted"] == 1


def test_a_missing_warehouse_folder_fails_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warehouse that cannot be opened is named; once it can, everything is loaded."""
    with opened_shop(tmp_path, monkeypatch) as shop:
        shop.land(event("a"))
        folder = shop.warehouse_file.parent
        folder.write_text("in the way")

        failed = shop.run()
        folder.unlink()
        repeated = shop.run()

        assert not failed.success
        assert str(shop.warehouse_file) in failure_of(failed)
        assert "\n" not in failure_of(failed)
        assert repeated.success
        assert shop.event_ids() == ["a"]


def test_postgresql_that_does_not_answer_fails_the_run_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's error, which Dagster keeps and shows, holds no password."""
    url = "postgresql://loader:pass-word@127.0.0.1:1/warehouse"
    with opened_shop(tmp_path, monkeypatch, url) as shop:
        shop.land(event("a"))

        failed = shop.run()

        assert not failed.success
        assert failure_of(failed).startswith(
            "The warehouse postgresql://127.0.0.1:1/warehouse cannot be reached: Connection refused"
        )
        logs = "".join(
            repr(entry)
            for run in shop.instance.get_runs()
            for entry in shop.instance.all_logs(run.run_id)
        )
        assert "pass-word" not in logs


def test_a_paused_integration_is_not_loaded_by_hand_either(shop: Shop) -> None:
    """The run fails and says how to go on; nothing is loaded."""
    shop.land(event("a"))
    with closing(Registry.open(shop.settings.registry)) as registry:
        registry.pause(shop.integration)

    result = shop.run()

    assert not result.success
    assert "integrations resume shop" in failure_of(result)
    assert not shop.has_tables
