"""``verify``: whole installations add up, and whatever is lost, doubled or changed is named."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.registry.registry import Registry
from tests.landed_bodies import SCHEMA, Warehouse

EVENTS = [
    b'{"event_id":"e1","metric":"sent","timestamp":1,"data":{"customer_id":"007","a":[1,{"b":2}]}}',
    b'{"event_id":"e2","metric":"opened","timestamp":2,"data":{"x":1.5}}',
    b'{"event_id":"e2","metric":"clicked","timestamp":3,"data":{"x":"text"}}',
    b'[{"event_id":"e3","flag":true},{"event_id":"e4"},7]',
    b"no JSON",
]


class Installation(NamedTuple):
    """A warehouse with an integration whose landed deliveries are loaded."""

    warehouse: Warehouse
    verify: Callable[..., Result]


@pytest.fixture
def installation(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """Give one of each kind, with two files loaded."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", warehouse_url)
    registry = Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")
    registry.create("Stitch Customerio")
    registry.close()
    warehouse = Warehouse(tmp_path, warehouse_url)
    warehouse.load_bodies(*EVENTS)
    warehouse.load_bodies(b'{"event_id":"e5"}', b'{"event_id":"e1","metric":"sent","timestamp":9}')

    def verify(*options: str) -> Result:
        warehouse.target.close()
        return CliRunner().invoke(cli, ["verify", *options])

    yield Installation(warehouse, verify)
    warehouse.target.close()


def files(installation: Installation) -> list[Path]:
    """Return the landing files, oldest first."""
    return sorted(installation.warehouse.landing.rglob("*.parquet"))


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_a_whole_installation_adds_up(installation: Installation, options: tuple[str, ...]) -> None:
    """What waits is shown and is no gap."""
    installation.warehouse.land(b'{"event_id":"e1","metric":"later"}')
    result = installation.verify(*options)
    assert result.exit_code == 0, result.output
    assert "8 landed = 7 loaded + 0 held + 1 waiting" in result.output
    assert "9 = 5 rows + 2 duplicates + 2 rejected" in result.output
    assert f"{SCHEMA}: nothing is missing" in result.output


def test_json_has_every_hour(installation: Installation) -> None:
    """For programs: counts by writer and hour, totals, gaps."""
    [found] = json.loads(installation.verify("Stitch Customerio", "--deep", "--json").stdout)
    assert found["gaps"] == []
    assert found["compared_rows"] == 5
    assert found["totals"]["rows"] == 5
    assert sum(hour["landed"] for hour in found["hours"]) == 7
    assert {hour["writer"] for hour in found["hours"]} == {"w0"}


def remove_first_file(installation: Installation) -> None:
    """Lose offsets amid others."""
    files(installation)[0].unlink()


def remove_last_file(installation: Installation) -> None:
    """Lose the last offsets, which only the warehouse knows of."""
    files(installation)[-1].unlink()


def truncate_file(installation: Installation) -> None:
    """Cut a file short."""
    file = files(installation)[-1]
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-20])


def delete_row(installation: Installation) -> None:
    """Lose a row."""
    installation.warehouse.change("DELETE FROM {s}.data WHERE event_id = 'e3'")


def add_row(installation: Installation) -> None:
    """Add a row of nothing."""
    installation.warehouse.change("INSERT INTO {s}.data (event_id) VALUES ('invented')")


def delete_rejected(installation: Installation) -> None:
    """Lose a rejected record."""
    installation.warehouse.change("DELETE FROM {s}._sdc_rejected WHERE record = '7'")


def lose_load(installation: Installation) -> None:
    """Lose what a load counted."""
    installation.warehouse.change("DELETE FROM {s}._sdc_loads WHERE rejected > 0")


@pytest.mark.parametrize(
    ("damage", "said", "fields"),
    [
        (
            remove_first_file,
            "The offsets 0 to 4 of w0 are in no landing file",
            {"writer": "w0", "first_offset": 0, "last_offset": 4},
        ),
        (
            remove_last_file,
            "The offsets 5 to 6 of w0 were loaded, and no landing file has them any more",
            {"writer": "w0", "first_offset": 5, "last_offset": 6},
        ),
        (truncate_file, "cannot be read: it is truncated", {"first_offset": 5, "last_offset": 6}),
        (delete_row, "rows of data: inserted by loads, there now: 5 and 4 (-1)", {}),
        (add_row, "rows of data: inserted by loads, there now: 5 and 6 (+1)", {}),
        (delete_rejected, "rejected records: counted by loads, there now: 2 and 1 (-1)", {}),
        (lose_load, "deliveries: offsets settled, counted by loads + held: 7 and 2 (-5)", {}),
    ],
)
def test_what_is_lost_is_named(
    installation: Installation,
    damage: Callable[[Installation], None],
    said: str,
    fields: dict[str, Any],
) -> None:
    """Exit code 1, a sentence, and where exactly."""
    installation.warehouse.target.close()
    damage(installation)
    result = installation.verify()
    assert result.exit_code == 1
    assert said in result.output
    [found] = json.loads(installation.verify("--json").stdout)
    assert any(said in gap["what"] and fields.items() <= gap.items() for gap in found["gaps"])


def test_an_event_id_has_one_row(installation: Installation) -> None:
    """PostgreSQL refuses another by its primary key; in DuckDB it is named."""
    installation.warehouse.target.close()
    double = "INSERT INTO {s}.data SELECT * FROM {s}.data WHERE event_id = 'e3'"
    if not installation.warehouse.is_duckdb:
        with pytest.raises(psycopg.errors.UniqueViolation):
            installation.warehouse.change(double)
        return
    installation.warehouse.change(double)
    result = installation.verify()
    assert result.exit_code == 1
    assert "not one row for each event_id: e3 (2 rows)." in result.output


def test_deep_says_all_that_counting_does_of_a_damaged_file(installation: Installation) -> None:
    """A file that cannot be read keeps the account from nobody."""
    truncate_file(installation)
    result = installation.verify("--deep")
    assert result.exit_code == 1
    assert "cannot be read: it is truncated" in result.output
    assert "Nothing was compared" in result.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE {s}.data SET metric = 'bounced' WHERE event_id = 'e2'",
            "e2 in stitch_customerio.data differs from offset 2 of w0 in: metric.",
        ),
        (
            "UPDATE {s}.data SET _sdc_offset = 1 WHERE event_id = 'e2'",
            "e2 in stitch_customerio.data differs from offset 2 of w0 in: _sdc_offset.",
        ),
        (
            "UPDATE {s}.data SET event_id = 'e9' WHERE event_id = 'e3'",
            "e3 is not in stitch_customerio.data: it was landed as offset 3 of w0.",
        ),
        (
            "UPDATE {s}.data SET event_id = 'e9' WHERE event_id = 'e3'",
            "e9 is in stitch_customerio.data and in no landing file.",
        ),
    ],
)
def test_what_counting_cannot_see_deep_names(
    installation: Installation, change: str, said: str
) -> None:
    """As many rows as there should be, and one of them another."""
    installation.warehouse.target.close()
    installation.warehouse.change(change)
    assert installation.verify().exit_code == 0
    result = installation.verify("--deep")
    assert result.exit_code == 1
    assert said in result.output
    assert not list(Path(installation.warehouse.landing.parent).glob("verify-*"))
