"""Events that no row could hold as they are, and decisions that must not depend on batches."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from customerio_pipeline.loading import staging
from tests.landed_bodies import Warehouse


@pytest.fixture(params=["one by one", "in bulk"])
def warehouse(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warehouse_url: str,
) -> Iterator[Warehouse]:
    """Give an empty warehouse, loaded in either of the two ways."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", 1 if request.param == "in bulk" else 10**9)
    warehouse = Warehouse(tmp_path, warehouse_url)
    yield warehouse
    warehouse.target.close()


def body(event_id: str, **values: object) -> bytes:
    """Return an event."""
    return json.dumps({"event_id": event_id, **values}).encode()


@pytest.mark.parametrize(
    "kinds",
    [[2**40], ["x" * 5000], [True, 0.5, "twenty characters ok", [1], {"a": 1}]],
    ids=["numbers", "long texts", "of all kinds"],
)
def test_an_event_of_900_values_is_kept_whole(warehouse: Warehouse, kinds: list[object]) -> None:
    """What does not fit into a row goes to the overflow; nothing is lost, nobody is kept back."""
    values = {f"key{n:03d}": kinds[n % len(kinds)] for n in range(900)}
    (report,) = warehouse.load_bodies(body("wide", **values), body("good", a=1))
    assert (report.inserted, report.rejected) == (2, 0)
    event = warehouse.event("wide")
    overflow = json.loads(str(event.pop("_sdc_overflow", "{}")))
    assert not event.keys() & overflow.keys()
    assert event.pop("event_id") == "wide"
    found = {name: [1] if value == "[1]" else value for name, value in event.items()}
    assert found | overflow == {
        f"{name}__a" if value == {"a": 1} else name: 1 if value == {"a": 1} else value
        for name, value in values.items()
    }
    assert warehouse.event("good") == {"event_id": "good", "a": 1}


@pytest.mark.parametrize(("levels", "column"), [(4000, "x"), (6000, "x__st")])
def test_arrays_nested_deeper_than_a_reader_manages_are_text(
    warehouse: Warehouse, levels: int, column: str
) -> None:
    """Up to 5,000 levels a value is JSON, beyond it is text."""
    deep = "[" * levels + "1" + "]" * levels
    warehouse.load_bodies(body("e0", x=[1]), b'{"event_id":"e1","x":%s}' % deep.encode())
    assert warehouse.event("e1") == {"event_id": "e1", column: deep}


@pytest.mark.parametrize(
    ("event_id", "reason"),
    [("🎉" * 651, "event_id is longer than 2600 bytes"), ("🎉" * 650, None)],
)
def test_an_event_id_fits_into_an_index(
    warehouse: Warehouse, event_id: str, reason: str | None
) -> None:
    """PostgreSQL's indexes take less than 2,704 bytes; one rule for every warehouse."""
    warehouse.load_bodies(json.dumps({"event_id": event_id}, ensure_ascii=False).encode())
    assert [found for _, found in warehouse.rejected()] == ([reason] if reason else [])


def test_the_earliest_event_decides_a_columns_type(warehouse: Warehouse) -> None:
    """Not the one that an implementation looks at first: a rebuild must decide the same."""
    warehouse.land(body("e1", b={"c": True}), body("e2", a="text"), sequences=[30, 31])
    warehouse.land(
        body("e3", a=1, zero="\0"), body("e4", b={"c": 1.5}), sequences=[10, 11], writer="w1"
    )
    warehouse.land(body("e5", a=2.5, b={"c": "x"}), sequences=[20])
    warehouse.load()
    assert warehouse.event("e3") == {"event_id": "e3", "a": 1, "zero": "\ufffd"}
    assert warehouse.event("e4") == {"event_id": "e4", "b__c": 1.5}
    assert warehouse.event("e5") == {"event_id": "e5", "a__do": 2.5, "b__c__st": "x"}
    assert warehouse.event("e1") == {"event_id": "e1", "b__c__bo": True}
    assert warehouse.event("e2") == {"event_id": "e2", "a__st": "text"}


def test_a_load_in_steps_says_how_much_waits(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is committed; the next one is staged meanwhile and must not be loaded twice."""
    monkeypatch.setattr("customerio_pipeline.loading.load.MAX_BATCH_DELIVERIES", 2)
    for number in range(5):
        warehouse.land(body(f"e{number}", n=number), body(f"f{number}", **{f"k{number}": "x"}))
    reports = warehouse.load()
    assert [report.waiting for report in reports] == [8, 6, 4, 2, 0]
    assert [report.row_count for report in reports] == [2, 4, 6, 8, 10]
    assert [report.new_columns for report in reports][1:] == [(f"k{n}",) for n in range(1, 5)]
    assert warehouse.rows("SELECT sum(n), count(k4) FROM {s}.data") == [(10, 1)]


def test_what_another_load_did_meanwhile_is_not_repeated(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was staged ahead is staged anew when the schema is not what it was made for."""
    from customerio_pipeline.loading.load import Loader
    from tests.landed_bodies import SCHEMA

    monkeypatch.setattr("customerio_pipeline.loading.load.MAX_BATCH_DELIVERIES", 1)
    for number in range(4):
        warehouse.land(body(f"e{number}", **{f"k{number}": number}))
    loader = Loader(SCHEMA, warehouse.landing, warehouse.target)
    assert loader.load_next() is not None
    other = Loader(SCHEMA, warehouse.landing, warehouse.target)
    assert other.load_next() is not None
    other.close()
    assert loader.load_next() is not None
    assert loader.load_next() is not None
    assert loader.load_next() is None
    loader.close()
    assert warehouse.rows("SELECT count(*), count(DISTINCT event_id) FROM {s}.data") == [(4, 4)]
    assert warehouse.event("e3") == {"event_id": "e3", "k3": 3}
