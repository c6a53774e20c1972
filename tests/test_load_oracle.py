"""Any events, in any order, in any batches, repeated or not: the table equals a plain oracle's."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.loading import staging
from tests.landed_bodies import SCHEMA, Warehouse
from tests.postgres_server import drop_schemas

KEYS = st.sampled_from(["a", "b", "A", "data", "id", "x y", "st", "k__b", "é", "", "_sdc_x", 'q"'])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
EVENTS = st.builds(
    lambda event_id, rest: {**rest, "event_id": event_id},
    st.sampled_from(["e1", "e2", "e3", "e4", "", None, 7]),
    st.dictionaries(KEYS, VALUES, max_size=5),
)
BODIES = st.one_of(
    EVENTS.map(lambda event: json.dumps(event, ensure_ascii=False).encode()),
    EVENTS.map(lambda event: json.dumps(event, indent=1).encode()),
    st.lists(EVENTS, max_size=3).map(lambda events: json.dumps(events).encode()),
    st.sampled_from([b"", b"{", b"[1,]", b'{"event_id":"e1",}', b'{"event_id":"e1","a":NaN}']),
)


def leaves(event: dict[str, object]) -> dict[tuple[tuple[str, ...], str], object]:  # noqa: C901
    """Return path and kind of every value that must be in the row, the oracle's way."""
    found: dict[tuple[tuple[str, ...], str], object] = {}

    def walk(value: object, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list):
            if holds_something(value):
                found[path, "json"] = value
        elif isinstance(value, bool):
            found[path, "boolean"] = value
        elif isinstance(value, int):
            if -(2**63) <= value < 2**63:
                found[path, "bigint"] = value
            else:
                found[path, "number"] = str(value)
        elif isinstance(value, float):
            found[path, "double"] = value
        elif value is not None:
            found[path, "text"] = value

    walk(event, ())
    return found


def holds_something(value: object) -> bool:
    """Tell whether an array or object holds anything but nulls."""
    if isinstance(value, dict):
        return bool(value) and any(True for _ in value)
    if isinstance(value, list):
        return any(holds_something(inner) for inner in value)
    return value is not None


def oracle(deliveries: list[tuple[int, str, int, bytes]]) -> tuple[dict[str, object], int]:
    """Return the latest event by id, flattened, and the number of rejected records."""
    latest: dict[str, object] = {}
    rejected = 0
    for _, _, _, body in sorted(deliveries):
        try:
            document = json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
        except (ValueError, ZeroDivisionError):
            rejected += 1
            continue
        events = document if isinstance(document, list) else [document]
        rejected += not events
        for event in events:
            if isinstance(event["event_id"], str) and event["event_id"]:
                latest[event["event_id"]] = leaves(event)
            else:
                rejected += 1
    return latest, rejected


def table(warehouse: Warehouse) -> dict[str, object]:
    """Return the rows of ``data`` as the oracle has them: by path and kind."""
    places: dict[str, list[tuple[tuple[str, ...], str]]] = {"event_id": [(("event_id",), "text")]}
    for name, path, kind in warehouse.rows("SELECT name, path, kind FROM {s}._sdc_columns"):
        places.setdefault(str(name), []).append((tuple(json.loads(str(path))), str(kind)))
    result = warehouse.target.query(f"SELECT * FROM {SCHEMA}.data")  # noqa: S608  a constant
    rows = {}
    for values in result.rows:
        row = dict(zip(result.columns, values, strict=True))
        rows[str(row["event_id"])] = {
            (path, kind): json.loads(str(value)) if kind == "json" else value
            for name, value in row.items()
            if value is not None
            for path, kind in places.get(name, [])
            if len(places[name]) == 1 or (kind == "number") == str(value).lstrip("-").isdigit()
        }
    return rows


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
@pytest.mark.parametrize("bulk_deliveries", [1, 10**9], ids=["in bulk", "one by one"])
@given(bodies=st.lists(BODIES, min_size=1, max_size=12), seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_table_equals_oracle_whatever_the_order_and_the_batches(
    kind: str, bulk_deliveries: int, postgres_database: str, bodies: list[bytes], seed: int
) -> None:
    """Design C5: the table is a function of the set of landed rows."""
    shuffle = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "BULK_DELIVERIES", bulk_deliveries)
        if kind == "postgres":
            drop_schemas(postgres_database)
        warehouse = Warehouse(Path(folder), postgres_database if kind == "postgres" else None)
        deliveries = []
        rest = list(enumerate(bodies, start=100))
        while rest:
            batch = rest[: shuffle.randint(1, 5)]
            del rest[: len(batch)]
            writer = shuffle.choice(["w0", "w1"])
            # Equal sequences of different writers must be decided, too.
            sequences = [number // 2 * 2 for number, _ in batch]
            first = warehouse.next_offset.get(writer, 0)
            deliveries += [
                (sequence, writer, first + at, body)
                for at, (sequence, (_, body)) in enumerate(zip(sequences, batch, strict=True))
            ]
            warehouse.land(*(body for _, body in batch), writer=writer, sequences=sequences)
            if shuffle.random() < 0.5:
                warehouse.load()
        warehouse.load()
        latest, rejected = oracle(deliveries)
        assert table(warehouse) == latest
        assert len(warehouse.rejected()) == rejected
        [(events, inserted, duplicates)] = warehouse.rows(
            "SELECT sum(events), sum(inserted), sum(duplicates) FROM {s}._sdc_loads"
        )
        assert inserted == len(latest)
        assert events == inserted + duplicates + rejected  # type: ignore[operator]  # numbers
        warehouse.target.close()
