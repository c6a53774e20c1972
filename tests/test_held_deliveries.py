"""Deliveries that no signing key signed: landed, not loaded, and loaded once they are released."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from customerio_pipeline.loading import staging
from customerio_pipeline.simulator.signing import sign
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA

KEY = "signing-secret"
TIMESTAMP = 1_700_000_000


class Holding(Installation):
    """An installation that holds deliveries."""

    def printed(self, *arguments: str) -> Any:  # noqa: ANN401  JSON
        """Run a command and return the JSON that it prints."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    def land(self, *event_ids: str, key: str = KEY, verdict: str = "invalid") -> None:
        """Land an event for each id, signed with `key`, received with `verdict`."""
        bodies = [json.dumps({"event_id": each, "metric": "sent"}).encode() for each in event_ids]
        self.warehouse.land(
            *bodies,
            signatures=[verdict] * len(bodies),
            signed=[(str(TIMESTAMP), sign(key, TIMESTAMP, body)) for body in bodies],
        )

    def ids(self) -> list[str]:
        """Return the ids in ``data``."""
        return sorted(self.warehouse.events())

    def held(self) -> int:
        """Return how many the warehouse says are held."""
        [[count]] = self.warehouse.rows("SELECT count(*) FROM {s}._sdc_held")
        return int(str(count))

    def check(self) -> dict[str, Any]:
        """Check that everything adds up, row by row."""
        [account] = self.printed("verify", "--deep", "--json")
        assert account["gaps"] == []
        return dict(account)


@pytest.fixture(params=["one by one", "in bulk"])
def installation(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    warehouse_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Holding]:
    """Give one for each warehouse and each way of staging."""
    if request.param == "in bulk":
        monkeypatch.setattr(staging, "BULK_DELIVERIES", 1)
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        yield Holding(warehouse, registry)


def test_held_deliveries_are_settled_and_in_no_table(installation: Holding) -> None:
    """They wait for nobody's load; the rest of their file is loaded."""
    installation.land("held-1", "held-2")
    installation.warehouse.land(
        b'{"event_id":"e1"}',
        b"no JSON",
        b'{"event_id":"stale"}',
        b'{"event_id":"e2"}',
        signatures=["valid:key_1", "invalid", "stale", "invalid:loaded"],
    )
    reports = installation.warehouse.load()

    assert installation.ids() == ["e1", "e2"]
    assert sum(report.held for report in reports) == 4
    assert installation.warehouse.rejected() == []
    assert installation.warehouse.load() == []
    account = installation.check()
    assert (account["landed"], account["loaded"], account["held"]) == (6, 2, 4)
    assert account["waiting"] == 0


def test_a_file_of_held_deliveries_alone_creates_the_tables(installation: Holding) -> None:
    """Else it would be read again at every load."""
    installation.land("held")
    [report] = installation.warehouse.load()

    assert (report.held, report.events, report.row_count) == (1, 0, 0)
    assert installation.warehouse.load() == []
    assert installation.ids() == []


def test_reverify_loads_what_matches_a_key_added_later(installation: Holding) -> None:
    """And only that; whoever has the URL alone gets nothing into the table."""
    installation.land("customerio-1", "customerio-2")
    installation.land("attacker", key="guessed")
    installation.warehouse.load()
    integration = installation.registry.find(SCHEMA)
    installation.registry.keys.add(integration, KEY)
    found = installation.printed("integrations", "reverify", SCHEMA, "--json")

    assert found == {"released": 2, "held": 1}
    account = installation.check()
    assert (account["waiting"], account["held"]) == (2, 1)
    assert installation.printed("status", "--json")[0]["waiting"] == 2
    [report] = installation.warehouse.load()
    assert (report.released, report.inserted, report.held) == (2, 2, 0)
    assert installation.ids() == ["customerio-1", "customerio-2"]
    assert installation.held() == 1
    assert installation.check()["loaded"] == 2
    assert installation.warehouse.load() == []
    assert installation.printed("integrations", "reverify", SCHEMA, "--json")["released"] == 0


def test_what_a_wrong_clock_held_is_released_without_a_tolerance(
    installation: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing that no key signed."""
    installation.registry.keys.add(installation.registry.find(SCHEMA), KEY)
    installation.land("late", verdict="stale")
    installation.land("forged", key="wrong")
    installation.warehouse.load()
    for tolerance, released, held in (("60", 0, 2), ("off", 1, 1)):
        monkeypatch.setenv("CUSTOMERIO_SIGNATURE_TOLERANCE_SECONDS", tolerance)
        found = installation.printed("integrations", "reverify", SCHEMA, "--json")
        assert (found["released"], found["held"]) == (released, held)
    installation.warehouse.load()
    assert installation.ids() == ["late"]
    installation.check()


def test_reverify_releases_everything_where_nothing_is_required(
    installation: Holding,
) -> None:
    """A lost key need not cost its deliveries."""
    integration = installation.registry.find(SCHEMA)
    installation.registry.keys.add(integration, "another")
    installation.land("held")
    installation.warehouse.load()
    assert installation.printed("integrations", "reverify", SCHEMA, "--json")["released"] == 0
    installation.run("keys", "mode", SCHEMA, "record")

    assert installation.printed("integrations", "reverify", SCHEMA, "--json")["released"] == 1
    installation.warehouse.load()
    assert installation.ids() == ["held"]


def test_released_before_their_first_load_they_are_never_held(
    installation: Holding,
) -> None:
    """So a table that is made anew comes out the same."""
    installation.land("held-1", "held-2", "held-3")
    release(installation.warehouse.landing, SCHEMA, {"w0": OffsetSet([(0, 0), (2, 2)])})
    [report] = installation.warehouse.load()

    assert (report.held, report.released, report.inserted) == (1, 0, 2)
    assert installation.ids() == ["held-1", "held-3"]
    installation.check()


def test_a_release_that_cannot_be_read_keeps_nothing_else_back(
    installation: Holding,
) -> None:
    """It is named when the load ends; what it releases stays held meanwhile."""
    installation.land("held-1", "held-2")
    release(installation.warehouse.landing, SCHEMA, {"w0": OffsetSet([(1, 1)])})
    folder = installation.warehouse.landing / f"integration={SCHEMA}" / "_releases"
    damaged = folder / "1-aaaaaa.json"
    damaged.write_bytes(b'{"released_at_ns":1,"offsets":{"w0":[[0,0]')
    result = installation.run("load")

    assert result.exit_code == 1
    assert "_releases/1-aaaaaa.json" in str(result.exception)
    assert installation.ids() == ["held-2"]
    damaged.write_bytes(b'{"released_at_ns":1,"offsets":{"w0":[[0,0]]}}')
    installation.warehouse.load()
    assert installation.ids() == ["held-1", "held-2"]


def test_a_warehouse_of_an_earlier_release_learns_to_hold(installation: Holding) -> None:
    """Its table of what is held is made by the next load."""
    installation.warehouse.load_bodies(b'{"event_id":"e1"}')
    installation.warehouse.change("DROP TABLE {s}._sdc_held")
    installation.check()
    installation.land("held")
    installation.warehouse.load()

    assert installation.ids() == ["e1"]
    assert installation.held() == 1


def test_the_latest_row_wins_whenever_it_is_released(installation: Holding) -> None:
    """A held delivery that came before the row in the table does not replace it (design C5)."""
    installation.warehouse.land(
        b'{"event_id":"e1","version":1}',
        b'{"event_id":"e2","version":1}',
        b'{"event_id":"e1","version":2}',
        b'{"event_id":"e2","version":2}',
        signatures=["invalid", "valid:key_1", "valid:key_1", "invalid"],
    )
    installation.warehouse.load()
    release(installation.warehouse.landing, SCHEMA, {"w0": OffsetSet([(0, 0), (3, 3)])})
    [report] = installation.warehouse.load()

    assert (report.released, report.updated, report.duplicates) == (2, 1, 2)
    events = installation.warehouse.events()
    assert {name: event["version"] for name, event in events.items()} == {"e1": 2, "e2": 2}
    installation.check()
