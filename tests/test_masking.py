"""Rules on fields: what is dropped or hashed never gets into a table, whichever way it comes."""

import hashlib
import hmac
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.loading import staging
from customerio_pipeline.loading.masking import Masking
from customerio_pipeline.loading.names import full_name
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.registry.records import FieldAction
from tests.landed_bodies import Warehouse
from tests.postgres_server import drop_schemas
from tests.test_load_oracle import BODIES, KEYS, oracle, table

SECRET = "0123456789abcdef" * 4
DROP, HASH, KEEP = FieldAction.DROP, FieldAction.HASH, FieldAction.KEEP


def hashed(text: str) -> str:
    """Return what the documentation says a hash is."""
    return hmac.new(bytes.fromhex(SECRET), text.encode(), hashlib.sha256).hexdigest()


def masking(*rules: tuple[str, FieldAction]) -> Masking:
    """Return rules with the key of these tests."""
    return Masking(rules, SECRET)


@pytest.fixture(params=[1, 10**9], ids=["in bulk", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each way."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", request.param)


def house(
    folder: Path, url: str, *rules: tuple[str, FieldAction], subtables: bool = False
) -> Warehouse:
    """Return a warehouse whose loads follow rules."""
    return Warehouse(folder, url, layout=Layout(subtables=subtables, masking=masking(*rules)))


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("data__recipient", ("data", "recipient"), True),
        ("DATA__Recipient", ("data", "recipient"), True),
        ("data__recipient", ("data", "Recipient"), True),
        ("data__recipient", ("data__recipient",), True),
        ("data__recipient", ("data", "recipient", "id"), False),
        ("data__recipient", ("data", "recipients"), False),
        ("data__content__*", ("data", "content", "html"), True),
        ("data__content__*", ("data", "content", "a", "b"), True),
        ("data__content__*", ("data", "content"), False),
        ("*email*", ("data", "identifiers", "email"), True),
        ("*email*", ("data", "e-mail"), False),
        ("*e_mail*", ("data", "e-mail"), True),
        ("data__?", ("data", "x"), True),
        ("data__?", ("data", "xy"), False),
        ("data__[ab]", ("data", "b"), True),
        ("data__[!ab]", ("data", "b"), False),
        ("data__naïve", ("data", "NAÏVE"), True),
        ("data.recipient", ("data", "recipient"), False),
        ("*", ("event_id",), False),
        ("*", ("data", "event_id"), True),
        # As the table cuts it, and as the key has it.
        ("*_end", ("x" * 100 + "_end",), True),
        (f"{'x' * 51}????????", ("x" * 100,), True),
        ("foo__st_", ("foo__st",), True),
    ],
)
def test_patterns(pattern: str, path: tuple[str, ...], matches: bool) -> None:
    """They are over names of columns, as the table has them but for numbers and types."""
    assert masking((pattern, DROP)).action(path) == (DROP if matches else None)


def test_the_first_match_counts() -> None:
    """Of several rules, `keep` among them."""
    rules = masking(("*__id", KEEP), ("data__*", HASH), ("*", DROP))
    actions = [rules.action(path) for path in (("data", "id"), ("data", "x"), ("x",))]
    assert actions == [None, HASH, DROP]
    # Of elements of arrays in tables of their own: as if the array were an object.
    path = ("data", "links", "[]")
    assert masking(("data__links__url", DROP)).action((*path, "url"), path) is DROP


@pytest.mark.usefixtures("way")
def test_what_is_dropped_or_hashed(tmp_path: Path, warehouse_url: str) -> None:
    """Every type of value, everywhere: equal texts have equal hashes, to join by."""
    warehouse = house(
        tmp_path,
        warehouse_url,
        ("data__identifiers__id", KEEP),
        ("data__identifiers__*", DROP),
        ("data__recipient", HASH),
        ("*_id", HASH),
        ("h_*", HASH),
        ("*gone*", DROP),
    )
    events = [
        {
            "event_id": "e1",
            "metric": "sent",
            "data": {
                "identifiers": {"id": "7", "email": "ada@example.com"},
                "recipient": "ada@example.com",
                "campaign_id": 42,
            },
            "h_text": "42",
            "h_float": 1.5,
            "h_true": True,
            "h_list": [{"b": 1, "a": "é/"}, None],
            "h_deep": {"h_x": ""},
            "gone": [1],
            "left": {"gone_x": 2, "x": 3},
        },
        {"event_id": "e2", "h_text": 42, "h_list": [], "h_float": -0.0, "gone": "x"},
        {"event_id": "e3", "h_text": False, "h_list": [None], "h_float": 0.0, "gone": 7},
        {"event_id": "e4", "h_text": None, "gone": 1e300, "h_big": 2**70},
    ]
    twice = b'{"event_id":"e5", "h_list": [{"a": 1, "a": 2}]}'
    warehouse.load_bodies(*(json.dumps(each).encode() for each in events), twice)

    assert warehouse.event("e5") == {"event_id": "e5", "h_list": hashed('[{"a":2}]')}
    assert warehouse.event("e1") == {
        "event_id": "e1",
        "metric": "sent",
        "data__identifiers__id": "7",
        "data__recipient": hashed("ada@example.com"),
        "data__campaign_id": hashed("42"),
        "h_text": hashed("42"),
        "h_float": hashed("1.5"),
        "h_true": hashed("true"),
        "h_list": hashed('[{"b":1,"a":"é/"},null]'),
        "h_deep__h_x": "",
        "left__x": 3,
    }
    assert warehouse.event("e2") == {
        "event_id": "e2",
        "h_text": hashed("42"),
        "h_float": hashed("0.0"),
    }
    assert warehouse.event("e3")["h_text"] == hashed("false")
    assert warehouse.event("e3")["h_float"] == hashed("0.0")
    assert warehouse.event("e4") == {"event_id": "e4", "h_big": hashed(str(2**70))}
    types = warehouse.columns()
    assert not [name for name in types if "gone" in name]
    assert {types[name] for name in types if name.startswith("h_")} == {"text"}
    warehouse.target.close()


@pytest.mark.usefixtures("way")
def test_a_rule_holds_for_what_is_loaded_from_then_on(tmp_path: Path, warehouse_url: str) -> None:
    """Hashes of numbers go beside the column of the numbers; the rows before stay."""
    warehouse = house(tmp_path, warehouse_url)
    warehouse.load_bodies(b'{"event_id":"e1","n":5,"t":"x","data":{"campaign_id":5}}')
    warehouse.layout = Layout(masking=masking(("n", HASH), ("*campaign_id", HASH), ("t", DROP)))
    warehouse.load_bodies(b'{"event_id":"e2","n":5,"t":"x","data":{"campaign_id":5}}')
    warehouse.layout = Layout(masking=masking(("*", KEEP), ("*", DROP)))
    warehouse.load_bodies(b'{"event_id":"e3","n":5,"t":"x","data":{"campaign_id":5}}')

    clear = {"n": 5, "t": "x", "data__campaign_id": 5}
    masked = {"n__st": hashed("5"), "data__campaign_id__st": hashed("5")}
    assert warehouse.event("e1") == {"event_id": "e1", **clear}
    assert warehouse.event("e2") == {"event_id": "e2", **masked}
    assert warehouse.event("e3") == {"event_id": "e3", **clear}
    warehouse.target.close()


@pytest.mark.usefixtures("way")
def test_elements_of_arrays_and_arrays(tmp_path: Path, warehouse_url: str) -> None:
    """A column of a subtable goes by its name in the event, an array by its own as a whole."""
    rules = [("list__email", HASH), ("list__phone", DROP), ("gone", DROP), ("whole", HASH)]
    warehouse = house(tmp_path, warehouse_url, *rules, subtables=True)
    warehouse.load_bodies(
        b'{"event_id":"e1","list":[{"email":"a@b.c","phone":"1","n":1,"list":[{"phone":2}]}],'
        b'"gone":[{"email":"a@b.c"}],"whole":[1,2],"in":{"list":[{"email":"a@b.c"}]}}'
    )
    assert warehouse.event("e1") == {"event_id": "e1", "whole": hashed("[1,2]")}
    rows = warehouse.rows("SELECT email, n FROM {s}.data__list")
    assert rows == [(hashed("a@b.c"), 1)]
    assert warehouse.rows("SELECT email FROM {s}.data__in__list") == [("a@b.c",)]
    tables = {str(name) for (name,) in warehouse.rows("SELECT table_name FROM {s}._sdc_columns")}
    assert not [name for name in tables if "gone" in name or "whole" in name]
    assert ("phone",) not in warehouse.rows(
        "SELECT name FROM {s}._sdc_columns WHERE table_name = 'data__list'"
    )
    warehouse.target.close()


@pytest.mark.usefixtures("way")
def test_nothing_gets_around_a_rule(tmp_path: Path, warehouse_url: str) -> None:
    """Not in `_sdc_overflow`, not in a rejected record, which stays one to count and to try."""
    warehouse = Warehouse(
        tmp_path,
        warehouse_url,
        layout=Layout(max_columns=9, masking=masking(("*email", HASH), ("*phone", DROP))),
    )
    warehouse.load_bodies(
        b'{"event_id":"e1","a":1,"b":2,"c":3,"email":"a@b.c","phone":"0123","x__email":7}',
        b'{"email":"a@b.c"}',
        b'[{"email":"a@b.c"},{"email":"b@b.c"},{"email":"a@b.c"}]',
        b'{"email":"a@b.c"',
    )
    [(overflow,)] = warehouse.rows("SELECT _sdc_overflow FROM {s}.data")
    assert json.loads(str(overflow)) == {
        "c": 3,
        "email": hashed("a@b.c"),
        "x__email": hashed("7"),
    }
    records = [str(record) for record, _ in warehouse.rejected()]
    one, other = (
        f"hmac-sha256:{hashed(json.dumps({'email': email}, separators=(',', ':')))}"
        for email in ("a@b.c", "b@b.c")
    )
    assert sorted(records[:4]) == sorted([one, one, other, one])
    assert records[4] == "hmac-sha256:" + hashed('{"email":"a@b.c"')
    warehouse.target.close()


PATTERNS = st.one_of(
    KEYS.map(lambda key: full_name([key])),
    KEYS.map(lambda key: f"*{full_name([key])}"),
    KEYS.map(lambda key: f"{full_name([key])}__*"),
    st.sampled_from(["*", "a*", "?", "*__?", "[ab]", "data__*"]),
)
RULES = st.lists(st.tuples(PATTERNS, st.sampled_from(list(FieldAction))), min_size=1, max_size=4)


def masked(leaf: tuple[tuple[tuple[str, ...], str], object], rules: Masking) -> object:
    """Return what a value of the oracle becomes; arrays as their kind only."""
    (path, kind), value = leaf
    if rules.action(path) is None:
        return (path, kind), value
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    if isinstance(value, float):
        text = repr(value + 0.0)
    return (path, "text"), "an array" if kind == "json" else hashed(text) if text else ""


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
@given(bodies=st.lists(BODIES, min_size=1, max_size=8), rules=RULES)
@settings(max_examples=5, deadline=None)
def test_both_ways_give_the_rows_of_the_oracle(
    kind: str, postgres_database: str, bodies: list[bytes], rules: list[tuple[str, FieldAction]]
) -> None:
    """Whatever the events and the rules."""
    layout = Layout(masking=masking(*rules))
    found = []
    for bulk_deliveries in (1, 10**9):
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(staging, "BULK_DELIVERIES", bulk_deliveries)
            if kind == "postgres":
                drop_schemas(postgres_database)
            url = postgres_database if kind == "postgres" else None
            warehouse = Warehouse(Path(folder), url, layout=layout)
            warehouse.load_bodies(*bodies)
            found.append((table(warehouse), warehouse.rejected()))
            warehouse.target.close()
    assert found[0] == found[1]
    latest, rejected = oracle([(at, "w0", at, body) for at, body in enumerate(bodies)])
    expected = {
        event_id: dict(
            masked(leaf, layout.masking)
            for leaf in leaves.items()
            if layout.masking.action(leaf[0][0]) is not DROP
        )
        for event_id, leaves in latest.items()
    }
    rows = found[0][0]
    for event_id, leaves in expected.items():
        for place, value in leaves.items():
            if value == "an array":
                assert len(str(rows[event_id].pop(place))) == 64
        assert rows[event_id] == {
            place: value for place, value in leaves.items() if value != "an array"
        }
    assert len(found[0][1]) == rejected
