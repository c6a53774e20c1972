"""Rules of stitch-loading about tables, keys and system columns; names carry the rule's number."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from customerio_pipeline.loading.staging import Layout
from tests.landed_bodies import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path, warehouse_url: str) -> Iterator[Warehouse]:
    """Give an empty warehouse of each kind."""
    warehouse = Warehouse(tmp_path, warehouse_url)
    yield warehouse
    warehouse.target.close()


def tables(warehouse: Warehouse) -> list[str]:
    """Return the names of the schema's tables."""
    found = warehouse.rows(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = '{s}' AND table_type = 'BASE TABLE' ORDER BY 1"
    )
    return sorted(str(name) for (name,) in found)


def test_1_4_and_3_17_no_other_system_column_and_no_other_type(warehouse: Warehouse) -> None:
    """Stitch's four columns and ours; a body makes text, bigint, double, boolean and JSON only."""
    warehouse.load_bodies(
        b'{"event_id":"e1","i":1,"d":1.5,"b":true,"t":"2020-01-01T00:00:00Z","n":"1.00","a":[1]}'
    )
    columns = warehouse.columns()
    ours = {"_sdc_key"} if warehouse.is_duckdb else set()
    assert {name for name in columns if name.startswith("_sdc")} - ours == {
        "_sdc_batched_at",
        "_sdc_received_at",
        "_sdc_sequence",
        "_sdc_table_version",
        "_sdc_writer",
        "_sdc_offset",
    }
    kinds = [str(columns[name]) for name in ("i", "d", "b", "t", "n", "a")]
    assert kinds == ["bigint", "double", "boolean", "text", "text", "json"]


def test_1_6_and_6_10_table_version_is_always_0(warehouse: Warehouse) -> None:
    """Webhook tables are never reset."""
    warehouse.load_bodies(b'{"event_id":"e1","_sdc_table_version":7}')
    assert warehouse.rows("SELECT _sdc_table_version FROM {s}.data") == [(0,)]


def test_1_7_a_dropped_system_column_is_made_again(warehouse: Warehouse) -> None:
    """Stitch stops loading; here only older rows have lost the value."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    warehouse.change("ALTER TABLE {s}.data DROP COLUMN _sdc_sequence CASCADE")
    warehouse.load_bodies(b'{"event_id":"e2"}')
    assert warehouse.rows("SELECT count(_sdc_sequence), count(*) FROM {s}.data") == [(1, 2)]
    warehouse.load_bodies(b'{"event_id":"e1","again":true}')
    assert warehouse.rows("SELECT count(_sdc_sequence), count(*) FROM {s}.data") == [(2, 2)]


def test_2_5_the_first_event_makes_every_table(warehouse: Warehouse) -> None:
    """`_sdc_rejected` is there although nothing was rejected."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    assert set(tables(warehouse)) == {
        "data",
        "_sdc_rejected",
        "_sdc_held",
        "_sdc_loads",
        "_sdc_watermarks",
        "_sdc_columns",
    }
    assert warehouse.rows("SELECT count(*) FROM {s}._sdc_rejected") == [(0,)]


def test_2_6_tables_keep_their_case(tmp_path: Path, warehouse_url: str) -> None:
    """As columns do."""
    warehouse = Warehouse(tmp_path, warehouse_url, layout=Layout(subtables=True))
    warehouse.load_bodies(b'{"event_id":"e1","Tags":["a"]}')
    assert "data__Tags" in tables(warehouse)
    warehouse.target.close()


def test_2_12_words_of_sql_are_names_like_any_other(warehouse: Warehouse) -> None:
    """They are quoted."""
    warehouse.load_bodies(b'{"event_id":"e1","order":1,"user":"u","select":2,"at":3,"table":true}')
    assert warehouse.event("e1") == {
        "event_id": "e1",
        "order": 1,
        "user": "u",
        "select": 2,
        "at": 3,
        "table": True,
    }


def test_3_18_times_are_utc_with_their_zone(warehouse: Warehouse) -> None:
    """To the microsecond."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    columns = warehouse.columns()
    for name in ("_sdc_received_at", "_sdc_batched_at"):
        assert columns[name] == "timestamp with time zone"
    [(received_at,)] = warehouse.rows("SELECT _sdc_received_at FROM {s}.data")
    assert received_at.utcoffset().total_seconds() == 0  # type: ignore[attr-defined]  # a time


def test_5_3_an_empty_object_is_rejected(warehouse: Warehouse) -> None:
    """The tables are there, without a row."""
    warehouse.load_bodies(b"{}")
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(0,)]
    assert warehouse.rejected() == [("{}", "event_id is missing")]


def test_5_7_text_of_any_length_fits(warehouse: Warehouse) -> None:
    """Without a change of the column."""
    warehouse.load_bodies(b'{"event_id":"e1","s":"ten  chars"}')
    warehouse.load_bodies(b'{"event_id":"e2","s":"%s"}' % (b"x" * 2**20))
    assert warehouse.rows("SELECT max(length(s)) FROM {s}.data") == [(2**20,)]
    assert warehouse.columns()["s"] == "text"


def test_5_8_a_split_is_said_once(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    """With schema, table, old and new column."""
    warehouse.load_bodies(b'{"event_id":"e1","age":15}')
    for event_id in ("e2", "e3"):
        warehouse.load_bodies(b'{"event_id":"%s","age":16.0}' % event_id.encode())
    [message] = caplog.messages
    assert message == (
        "stitch_customerio.data: age has values of another type now; they go to the new column"
        " age__do."
    )


def test_5_11_what_users_add_stays_and_what_they_drop_comes_back(warehouse: Warehouse) -> None:
    """A column of theirs, an index of theirs; a dropped column returns at the end."""
    warehouse.load_bodies(b'{"event_id":"e1","metric":"sent"}')
    warehouse.change(
        "ALTER TABLE {s}.data ADD COLUMN note VARCHAR(20)",
        "ALTER TABLE {s}.data DROP COLUMN metric CASCADE",
    )
    warehouse.load_bodies(b'{"event_id":"e2","metric":"opened"}')
    assert list(warehouse.columns())[-2:] == ["note", "metric"]
    assert warehouse.rows("SELECT event_id, note, metric FROM {s}.data ORDER BY 1") == [
        ("e1", None, None),
        ("e2", None, "opened"),
    ]


def test_5_12_only_the_key_is_not_null(warehouse: Warehouse) -> None:
    """Every other column may be empty."""
    warehouse.load_bodies(b'{"event_id":"e1","a":1}')
    assert warehouse.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = '{s}'"
        " AND table_name = 'data' AND is_nullable = 'NO'"
    ) == [("event_id",)]


def test_6_1_and_6_7_a_redelivery_replaces_the_row(warehouse: Warehouse) -> None:
    """One row, with receipt and sequence of the later delivery; counted as absorbed."""
    body = b'{"event_id":"e1","metric":"sent"}'
    warehouse.land(body, sequences=[10])
    warehouse.load()
    warehouse.land(body, sequences=[20])
    (report,) = warehouse.load()
    assert warehouse.rows("SELECT event_id, metric, _sdc_sequence FROM {s}.data") == [
        ("e1", "sent", 20)
    ]
    assert (report.inserted, report.duplicates, report.updated) == (0, 1, 1)


def test_6_11_no_event_removes_a_row(warehouse: Warehouse) -> None:
    """An unsubscription is an event like any other."""
    warehouse.load_bodies(
        b'{"event_id":"e1","object_type":"customer","metric":"subscribed"}',
        b'{"event_id":"d1","object_type":"customer","metric":"unsubscribed"}',
    )
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(2,)]


def test_7_1_rejected_records_have_stitchs_columns_first(warehouse: Warehouse) -> None:
    """Then those that tell where the delivery is in landing."""
    warehouse.load_bodies(b"no JSON")
    found = warehouse.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = '{s}'"
        " AND table_name = '_sdc_rejected' ORDER BY ordinal_position"
    )
    assert [name for (name,) in found] == [
        "record",
        "reason",
        "table_name",
        "_sdc_rejected_at",
        "_sdc_sequence",
        "_sdc_received_at",
        "writer",
        "offset",
    ]


@pytest.mark.parametrize("keys", [1601, 10_001, 100_000])
def test_8_an_event_of_many_keys_loads(warehouse: Warehouse, keys: int) -> None:
    """Stitch rejects it, or the whole table; here the surplus is in `_sdc_overflow`."""
    values = {f"k{n}": n for n in range(keys)}
    (report,) = warehouse.load_bodies(
        json.dumps({"event_id": "wide", **values}).encode(), b'{"event_id":"e2","k1":5}'
    )
    assert (report.inserted, report.rejected) == (2, 0)
    event = warehouse.event("wide")
    overflow = json.loads(str(event.pop("_sdc_overflow")))
    assert {**event, **overflow} == {"event_id": "wide", **values}
    assert 900 < len(warehouse.columns()) <= 1002
    assert warehouse.event("e2") == {"event_id": "e2", "k1": 5}


def test_bodies_of_30_megabytes_load_beside_small_ones(warehouse: Warehouse) -> None:
    """One huge text, one huge array."""
    warehouse.load_bodies(
        b'{"event_id":"e1","html":"%s"}' % (b"<p>x</p>" * 3_750_000),
        b'{"event_id":"e2","list":[%s]}' % b",".join([b"1"] * 15_000_000),
        b'{"event_id":"e3","a":1}',
    )
    assert warehouse.rows("SELECT length(html) FROM {s}.data WHERE event_id = 'e1'") == [
        (30_000_000,)
    ]
    assert warehouse.rows("SELECT count(list), count(a), count(*) FROM {s}.data") == [(1, 1, 3)]
