"""The asset checks of an integration, run with its load and on what somebody broke."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from tests.dagster_shop import Shop, opened_shop
from tests.landed_events import WRITER, event


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str) -> Iterator[Shop]:
    """Yield an installation of the test's own, on each kind of warehouse."""
    with opened_shop(tmp_path, monkeypatch, warehouse_url) as shop:
        yield shop


def _evaluations(shop: Shop) -> dict[str, dg.AssetCheckEvaluation]:
    """Load, and return what the checks found, by name."""
    return {each.check_name: each for each in shop.run().get_asset_check_evaluations()}


def test_every_check_passes_on_a_sound_load(shop: Shop) -> None:
    """Three checks belong to the job and pass."""
    shop.land(*(event(f"e{number}") for number in range(10)))

    found = _evaluations(shop)

    assert {name: each.passed for name, each in found.items()} == {
        "event_id_unique_and_not_null": True,
        "landed_offsets_gapless": True,
        "rejected_share": True,
        "signatures_valid": True,
    }


def test_checks_pass_before_the_first_event(shop: Shop) -> None:
    """An empty integration is not a broken one."""
    assert all(each.passed for each in _evaluations(shop).values())


def test_a_repeated_or_missing_event_id_is_an_error(shop: Shop) -> None:
    """Whoever writes to the table behind the loader's back is found out."""
    shop.land(event("a"), event("b"), event("c"))
    shop.run()
    if not shop.is_duckdb:
        shop.change_warehouse("ALTER TABLE shop.data DROP CONSTRAINT data_pkey")
    shop.change_warehouse("ALTER TABLE shop.data ALTER COLUMN event_id DROP NOT NULL")
    shop.change_warehouse("INSERT INTO shop.data (event_id) VALUES ('a'), (NULL)")

    check = _evaluations(shop)["event_id_unique_and_not_null"]

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.ERROR
    assert check.description == "5 rows: 1 without event_id, 1 repeated."


def test_a_gap_in_the_offsets_is_named(shop: Shop) -> None:
    """A landing file that vanished shows as the offsets that it held."""
    shop.land(event("a"))
    lost = shop.land(event("b"), event("c"), first=1)
    shop.land(event("d"), first=3)
    lost.unlink()

    check = _evaluations(shop)["landed_offsets_gapless"]

    assert not check.passed
    assert "Writer aaaaaaaaaa: offsets 1 to 2 are missing." in str(check.description)


def test_a_file_with_fewer_rows_than_promised_is_named(shop: Shop) -> None:
    """The names alone would hide what is missing inside a file."""
    short = shop.land(event("a"), event("b"), event("c"))
    pq.write_table(pq.read_table(short, partitioning=None).slice(0, 2), short)

    check = _evaluations(shop)["landed_offsets_gapless"]

    assert not check.passed
    assert f"{short.name} holds 2 rows, its name promises 3." in str(check.description)


def test_landing_can_be_checked_without_loading(shop: Shop) -> None:
    """The check's own button in the UI."""
    shop.land(event("a"))
    shop.land(event("c"), first=2)
    check = dg.AssetCheckKey(dg.AssetKey(["shop", "data"]), "landed_offsets_gapless")
    job = dg.define_asset_job("check", selection=dg.AssetSelection.checks(check))
    definitions = dg.Definitions.merge(shop.definitions, dg.Definitions(jobs=[job]))

    result = definitions.resolve_job_def("check").execute_in_process(instance=shop.instance)

    (found,) = result.get_asset_check_evaluations()
    assert "offsets 1 to 1 are missing" in str(found.description)
    assert not shop.has_tables


def test_a_damaged_file_is_named(shop: Shop) -> None:
    """A file that is no Parquet file does not stop the check."""
    damaged = shop.land(event("a"))
    damaged.write_bytes(b"PAR1")

    check = _evaluations(shop)["landed_offsets_gapless"]

    assert not check.passed
    assert damaged.name in str(check.description)


def test_held_deliveries_are_a_warning_until_they_are_released(shop: Shop) -> None:
    """With the URL and the verdict; a release has them loaded by the sensor's next run."""
    shop.land(event("e1"))
    shop.land(event("e2"), event("e3"), first=1, signature="invalid")

    check = _evaluations(shop)["signatures_valid"]

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["held"].value == 2
    assert "url_1 | invalid | 2" in str(check.metadata["by_url"].value)
    release(shop.settings.landing, "shop", {WRITER: OffsetSet([(1, 2)])})
    assert _evaluations(shop)["signatures_valid"].passed


def test_many_rejected_events_are_a_warning(shop: Shop) -> None:
    """The share and the reasons are shown; loading goes on."""
    shop.land(*(event(f"e{number}") for number in range(8)), b"nonsense", b" nonsense")

    check = _evaluations(shop)["rejected_share"]

    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["rejected"].value == 2
    assert check.metadata["share"].value == pytest.approx(0.2)
    assert "| body is not JSON: expected a value | 2 |" in str(check.metadata["reasons"].value)
