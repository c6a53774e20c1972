"""``trace``: whatever became of an event is found, on every warehouse."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA


class Traced(Installation):
    """An installation whose events are traced."""

    def trace(self, event_id: str, *options: str) -> dict[str, Any]:
        """Return what is known of an event."""
        result = self.run("trace", event_id, "--json", *options)
        assert result.exit_code == 0, result.output
        [found] = json.loads(result.stdout)
        return dict(found)

    def fates(self, event_id: str, *options: str) -> list[tuple[str, int, str]]:
        """Return writer, offset and fate of each delivery of it, oldest first."""
        return [
            (each["writer"], each["offset"], each["fate"])
            for each in self.trace(event_id, *options)["deliveries"]
        ]


@pytest.fixture
def installation(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Traced]:
    """Give one of each kind, with a second integration."""
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        registry.create("Another")
        yield Traced(warehouse, registry)


def test_every_delivery_with_its_fate(installation: Traced) -> None:
    """The latest is in the table; what comes later waits; what nobody signed is held."""
    house = installation.warehouse
    house.land(b'{"event_id":"e1","v":1}', b'{"event_id":"e2"}', b'{"event_id":"e1","v":2}')
    house.land(b'{"event_id":"e1","v":3}', writer="w1", sequences=[1])
    house.land(b'{"event_id":"e1","v":4}', signatures=["invalid"])
    house.load()
    house.land(b'{"event_id":"e1","v":5}')
    house.change("UPDATE {s}._sdc_loads SET run_id = 'the-run'")

    assert installation.fates("e1") == [
        ("w1", 0, "superseded"),
        ("w0", 0, "superseded"),
        ("w0", 2, "in data"),
        ("w0", 3, "held"),
        ("w0", 4, "waiting"),
    ]
    found = installation.trace("e1", "--integration", "Stitch Customerio")
    assert found["row"]["v"] == 2
    assert found["load"]["run_id"] == "the-run"
    [(load_id,)] = house.rows("SELECT load_id FROM {s}._sdc_loads")
    assert found["load"]["load_id"] == load_id
    third = found["deliveries"][2]
    assert (third["row"], third["url_id"], third["signature"]) == (2, "url_1", "unchecked")
    assert (house.landing / third["file"]).is_file()
    printed = installation.run("trace", "e1").output
    assert load_id in printed
    assert "/runs/the-run" in printed


def test_an_event_of_an_array_is_found_by_its_row(installation: Traced) -> None:
    """Its earlier deliveries are found when every body is looked into."""
    house = installation.warehouse
    body = b'[{"event_id":"e1","v":%d},{"event_id":"e2"}]'
    house.land(body % 1)
    house.land(gzip.compress(body % 2), content_encoding="gzip")
    house.load()

    assert installation.fates("e1") == [("w0", 1, "in data")]
    assert installation.fates("e1", "--everywhere") == [
        ("w0", 0, "superseded"),
        ("w0", 1, "in data"),
    ]


def test_a_rejected_delivery_names_the_reason(installation: Traced) -> None:
    """Its id could be read at receipt; as a row it could not be loaded."""
    event_id = "x" * 2000
    installation.warehouse.load_bodies(json.dumps({"event_id": event_id}).encode())

    [(_, _, fate)] = installation.fates(event_id)
    assert fate.startswith("rejected: event_id is longer than")


def test_what_nobody_has_is_said_so(installation: Traced) -> None:
    """Before anything landed, and after; an id is data, never a part of SQL."""
    for event_id in ("e9", "' OR ''='", "%"):
        result = installation.run("trace", event_id)
        assert (result.exit_code, event_id in result.output) == (1, True)
        installation.warehouse.load_bodies(b'{"event_id":"e1"}')


def test_a_row_whose_files_are_gone_is_shown(installation: Traced) -> None:
    """Without a delivery."""
    installation.warehouse.load_bodies(b'{"event_id":"e1"}')
    for file in installation.warehouse.landing.rglob("*.parquet"):
        file.unlink()

    found = installation.trace("e1")
    assert (found["deliveries"], found["row"]["event_id"]) == ([], "e1")


def test_a_damaged_landing_file_is_named(installation: Traced) -> None:
    """In a sentence, not a traceback."""
    installation.warehouse.load_bodies(b'{"event_id":"e1"}')
    [file] = installation.warehouse.landing.rglob("*.parquet")
    file.write_bytes(b"PAR1 and nothing else")

    assert file.name in str(installation.run("trace", "e1").exception)


def test_only_the_named_integration_is_searched(installation: Traced) -> None:
    """Others may have the same ids."""
    installation.warehouse.load_bodies(b'{"event_id":"e1"}')

    assert installation.trace("e1")["schema"] == SCHEMA
    assert installation.run("trace", "e1", "--integration", "Another").exit_code == 1
