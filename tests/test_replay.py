"""``replay-rejected`` and ``replay``: after a rule changed, tables and counts come out right."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from customerio_pipeline.loading import decoding, staging
from customerio_pipeline.registry.records import Arrays
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA

LONG = "x" * 2000
EVENTS = [
    b'{"event_id":"e1","metric":"sent"}',
    b"no JSON",
    f'{{"event_id":"{LONG}","metric":"sent"}}'.encode(),
    f'[{{"event_id":"a1"}},{{"event_id":"{LONG}a"}},7,7,{{"event_id":"a1","n":1}}]'.encode(),
    b'{"event_id":"held"}',
    b'{"event_id":"e1","metric":"opened"}',
]
SIGNATURES = ["unchecked"] * 4 + ["invalid", "unchecked"]


class Replaying(Installation):
    """An installation in which something was rejected."""

    def printed(self, *arguments: str) -> Any:  # noqa: ANN401  JSON
        """Run a command and return the JSON that it prints."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.output)

    def replay_all(self) -> dict[str, Any]:
        """Load everything again."""
        found: dict[str, Any] = self.printed("replay", SCHEMA, "--since", "2000-01-01")
        return found

    def check(self) -> dict[str, Any]:
        """Check that everything adds up, row by row."""
        [account] = self.printed("verify", "--deep")
        assert account["gaps"] == []
        return dict(account)

    def table(self, name: str) -> list[tuple[object, ...]]:
        """Return the rows of a table."""
        return sorted(self.warehouse.rows(f"SELECT * FROM {{s}}.{name}"), key=str)  # noqa: S608  a test's constant


@pytest.fixture(params=["duckdb", "postgres"])
def installation(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Replaying]:
    """Give one for each warehouse, each with a way of staging, with the events above loaded."""
    if request.param == "duckdb":
        url = f"duckdb:///{tmp_path / 'warehouse' / 'customerio.duckdb'}"
        monkeypatch.setattr(staging, "BULK_DELIVERIES", 1)
    else:
        url = request.getfixturevalue("postgres_url")
    with installed(tmp_path, url, monkeypatch) as parts:
        replaying = Replaying(*parts)
        replaying.warehouse.land(*EVENTS[:3], signatures=SIGNATURES[:3])
        replaying.warehouse.load()
        replaying.warehouse.land(*EVENTS[3:], signatures=SIGNATURES[3:])
        replaying.warehouse.load()
        yield replaying


def allow_long_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the rule that the long ids broke."""
    monkeypatch.setattr(decoding, "MAX_EVENT_ID_LENGTH", 2500)


def test_what_is_valid_now_enters_the_table(
    installation: Replaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves the rejected ones; what is not stays as it was, and everything adds up."""
    before = installation.table("_sdc_rejected")
    assert len(before) == 5
    loads = installation.table("_sdc_loads")
    assert installation.printed("replay-rejected", SCHEMA)["rejected"] == 0
    assert installation.table("_sdc_rejected") == before
    installation.check()

    allow_long_ids(monkeypatch)
    found = installation.printed("replay-rejected", SCHEMA)
    assert (found["deliveries"], found["inserted"], found["rejected"]) == (3, 2, -2)
    assert found["still_rejected"] == 3
    assert set(installation.warehouse.events()) == {"e1", "a1", LONG, LONG + "a"}
    # Their rejection is as old as it was.
    after = installation.table("_sdc_rejected")
    assert set(after) < set(before)
    assert [row[0] for row in after] == ["7", "7", "no JSON"]
    # What was received when stays true (stitch-loading 7.5).
    [[writer, offset]] = installation.warehouse.rows(
        f"SELECT _sdc_writer, _sdc_offset FROM {{s}}.data WHERE event_id = '{LONG}'"  # noqa: S608
    )
    assert (writer, offset) == ("w0", 2)
    account = installation.check()
    assert (account["landed"], account["loaded"], account["held"]) == (6, 5, 1)
    assert len(installation.table("_sdc_loads")) == len(loads) + 2
    assert installation.printed("replay-rejected", SCHEMA)["inserted"] == 0
    installation.check()


def test_the_latest_row_wins_over_what_was_rejected(
    installation: Replaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that became valid is no reason to forget a later version (design C5)."""
    installation.warehouse.land(f'{{"event_id":"{LONG}b"}}'.encode(), b'{"event_id":"z"}')
    installation.warehouse.load()
    read = decoding._checked

    def renamed(event: object) -> object:
        return read(event | {"event_id": "z", "old": True} if LONG + "b" in str(event) else event)

    monkeypatch.setattr(decoding, "_checked", renamed)
    found = installation.printed("replay-rejected", SCHEMA)
    assert (found["inserted"], found["replaced"], found["rejected"]) == (0, 0, -1)
    assert installation.warehouse.event("z") == {"event_id": "z"}
    installation.check()


def test_a_body_may_turn_out_to_be_many_events(
    installation: Replaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which were counted as one, while it was no JSON."""
    read = decoding.read_exactly
    array = [{"event_id": "n1"}, {"event_id": "n2"}, {"event_id": "n1"}]
    monkeypatch.setattr(
        decoding, "read_exactly", lambda text: array if text == "no JSON" else read(text)
    )
    found = installation.printed("replay-rejected", SCHEMA)
    assert (found["inserted"], found["rejected"]) == (2, -1)
    assert installation.check()["totals"]["events"] == 1 + 1 + 1 + 5 + 1 + 2


def test_a_repeat_changes_nothing(installation: Replaying) -> None:
    """Not even when a row was loaded, nor since when a record is rejected; held ones stay held."""
    names = ("data", "_sdc_rejected", "_sdc_held", "_sdc_watermarks", "_sdc_columns")
    before = {name: installation.table(name) for name in names}
    found = installation.replay_all()
    assert (found["deliveries"], found["inserted"]) == (5, 0)
    assert (found["replaced"], found["rejected"]) == (0, 0)
    assert {name: installation.table(name) for name in names} == before
    installation.check()


def test_what_comes_out_differently_is_replaced(
    installation: Replaying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only that, and also what an earlier rule rejected."""
    allow_long_ids(monkeypatch)
    read = decoding._checked

    def marked(event: object) -> object:
        return read(event | {"mark": 1} if "opened" in str(event) else event)

    monkeypatch.setattr(decoding, "_checked", marked)
    monkeypatch.setattr(decoding, "_decode", decoding.msgspec.json.decode)
    found = installation.replay_all()
    assert found["inserted"] == 2
    assert found["rejected"] == -2
    if staging.BULK_DELIVERIES > 1:  # plain events never come by the changed rule
        assert found["replaced"] == 1
        assert installation.warehouse.event("e1")["mark"] == 1
    [account] = installation.printed("verify")
    assert account["gaps"] == []


def test_rows_changed_by_hand_are_mended(installation: Replaying) -> None:
    """A replay compares with what is there, whatever the reason."""
    installation.warehouse.change("UPDATE {s}.data SET metric = 'wrong' WHERE event_id = 'e1'")
    assert installation.replay_all()["replaced"] == 1
    assert installation.warehouse.event("e1")["metric"] == "opened"
    installation.check()


def test_only_the_hours_asked_for(installation: Replaying) -> None:
    """By the hour of landing; a range without any is no error."""
    found = installation.printed(
        "replay", SCHEMA, "--since", "2000-01-01", "--until", "2000-01-02T03:00:00Z"
    )
    assert found["deliveries"] == 0
    wrong = installation.run("replay", SCHEMA, "--since", "2000-01-02", "--until", "2000-01-01")
    assert wrong.exit_code == 2


def test_landing_that_is_lost_is_named(installation: Replaying) -> None:
    """The rest is tried; what cannot be read again stays rejected."""
    first, second = sorted(installation.warehouse.landing.rglob("*.parquet"))
    moved = first.rename(first.with_suffix(".away"))
    result = installation.run("replay-rejected", SCHEMA)
    assert result.exit_code == 1
    assert "offsets 1 to 2 of w0" in str(result.exception)
    moved.rename(first)
    content = second.read_bytes()
    second.write_bytes(content[: len(content) // 2])
    result = installation.run("replay-rejected", SCHEMA)
    assert result.exit_code == 1
    assert second.name in str(result.exception)
    second.write_bytes(content)
    installation.check()


def test_nothing_was_loaded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is nothing to do."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        replaying = Replaying(*parts)
        replaying.warehouse.land(b"no JSON")
        assert replaying.printed("replay-rejected", SCHEMA)["deliveries"] == 0
        assert replaying.replay_all()["deliveries"] == 0


def test_arrays_in_tables_of_their_own(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Come again with the row that they belong to, once."""
    with installed(tmp_path, warehouse_url, monkeypatch, Arrays.SUBTABLES) as parts:
        replaying = Replaying(*parts)
        replaying.warehouse.load_bodies(b'{"event_id":"e1","tags":["a","b"]}', b"no JSON")
        before = replaying.table("data__tags")
        found = replaying.replay_all()
        assert (found["replaced"], found["inserted"]) == (1, 0)
        assert [row[-1] for row in replaying.table("data__tags")] == [row[-1] for row in before]
        [account] = replaying.printed("verify")
        assert account["gaps"] == []
