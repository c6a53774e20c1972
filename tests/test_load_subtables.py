"""Arrays in tables of their own: the vectors of stitch-loading 4.2 to 4.13, from landing to SQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from customerio_pipeline.loading import staging
from customerio_pipeline.loading.staging import Layout
from tests.landed_bodies import Warehouse

Rows = list[tuple[object, ...]]


@pytest.fixture(params=["one by one", "in bulk"])
def warehouse(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warehouse_url: str,
) -> Iterator[Warehouse]:
    """Give an empty warehouse for an integration with subtables, loaded in either way."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", 1 if request.param == "in bulk" else 10**9)
    warehouse = Warehouse(tmp_path, warehouse_url, layout=Layout(subtables=True))
    yield warehouse
    warehouse.target.close()


def tables(warehouse: Warehouse) -> list[str]:
    """Return the names of the tables that hold events or parts of them."""
    found = warehouse.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = '{s}'"
        " AND table_name LIKE 'data%' ORDER BY 1"
    )
    return [str(name) for (name,) in found]


def elements(warehouse: Warehouse, table: str, *columns: str) -> Rows:
    """Return columns of a subtable, in the order of its key."""
    selected = ", ".join(f'"{column}"' for column in columns)
    return sorted(
        warehouse.rows(f'SELECT {selected} FROM {{s}}."{table}"'),  # noqa: S608  a test's names
        key=lambda row: tuple((value is not None, str(value)) for value in row),
    )


def test_4_2_arrays_of_objects_are_subtables(warehouse: Warehouse) -> None:
    """Named after their path, with the parent's key and system columns; no column in `data`."""
    warehouse.load_bodies(
        b'{"event_id":"e1","data":{"links":[{"id":1,"href":"x"},{"id":2,"href":"y"}]}}'
    )
    assert tables(warehouse) == ["data", "data__data__links"]
    assert elements(
        warehouse, "data__data__links", "_sdc_level_0_id", "_sdc_source_key_event_id", "href", "id"
    ) == [(0, "e1", "x", 1), (1, "e1", "y", 2)]
    assert warehouse.event("e1") == {"event_id": "e1"}
    assert warehouse.rows(
        "SELECT count(*) FROM {s}.data JOIN {s}.data__data__links AS links"
        " ON links._sdc_source_key_event_id = event_id"
        " AND links._sdc_sequence = data._sdc_sequence"
        " AND links._sdc_received_at = data._sdc_received_at"
        " AND links._sdc_batched_at = data._sdc_batched_at"
        " AND links._sdc_table_version = data._sdc_table_version"
    ) == [(2,)]


def test_4_3_scalars_go_to_the_column_value(warehouse: Warehouse) -> None:
    """One row an element."""
    warehouse.load_bodies(b'{"event_id":"e1","category":["c1","c2"]}')
    assert elements(warehouse, "data__category", "_sdc_level_0_id", "value") == [
        (0, "c1"),
        (1, "c2"),
    ]


def test_4_4_and_4_6_arrays_within_arrays_have_a_level_more(warehouse: Warehouse) -> None:
    """Level ids start at 0 in each event and follow the order of the array."""
    warehouse.load_bodies(
        b'{"event_id":"e1","items":[{"sku":"s","taxes":[{"rate":"0.06"}]},{"sku":"t"}]}',
        b'{"event_id":"e2","items":[{"taxes":[{"rate":"1"},{"rate":"2"}]}]}',
    )
    key = ("_sdc_source_key_event_id", "_sdc_level_0_id")
    assert elements(warehouse, "data__items", *key, "sku") == [
        ("e1", 0, "s"),
        ("e1", 1, "t"),
        ("e2", 0, None),
    ]
    assert elements(warehouse, "data__items__taxes", *key, "_sdc_level_1_id", "rate") == [
        ("e1", 0, 0, "0.06"),
        ("e2", 0, 0, "1"),
        ("e2", 0, 1, "2"),
    ]


def test_4_5_the_key_is_a_constraint_where_the_warehouse_has_them(
    tmp_path: Path, postgres_url: str
) -> None:
    """Over level ids and source key, in byte order of their names."""
    warehouse = Warehouse(tmp_path, postgres_url, layout=Layout(subtables=True))
    warehouse.load_bodies(b'{"event_id":"e1","items":[{"taxes":[1]}]}')
    assert warehouse.rows(
        "SELECT constraint_name, string_agg(column_name, ' ' ORDER BY ordinal_position)"
        " FROM information_schema.key_column_usage WHERE table_schema = '{s}'"
        " AND table_name = 'data__items__taxes' GROUP BY 1"
    ) == [
        (
            "data__items__taxes_pkey",
            "_sdc_level_0_id _sdc_level_1_id _sdc_source_key_event_id",
        )
    ]
    warehouse.target.close()


def test_4_8_a_shorter_array_leaves_no_rows_behind(warehouse: Warehouse) -> None:
    """Rows of the earlier version go in the same transaction, as do those of an array now gone."""
    warehouse.load_bodies(
        b'{"event_id":"e1","tags":["a","b","c"]}', b'{"event_id":"e2","tags":[1]}'
    )
    warehouse.load_bodies(b'{"event_id":"e1","tags":["z"]}')
    assert elements(warehouse, "data__tags", "_sdc_source_key_event_id", "value") == [
        ("e1", "z"),
        ("e2", None),
    ]
    warehouse.load_bodies(b'{"event_id":"e1","other":1}')
    assert elements(warehouse, "data__tags", "_sdc_source_key_event_id") == [("e2",)]


def test_4_8_an_older_version_changes_nothing(warehouse: Warehouse) -> None:
    """Neither the row nor the elements of what is newer, within a batch or across two."""
    warehouse.land(b'{"event_id":"e1","tags":["new"]}', sequences=[20])
    warehouse.land(b'{"event_id":"e1","tags":["old","older"]}', sequences=[10], writer="w1")
    warehouse.load()
    assert elements(warehouse, "data__tags", "_sdc_sequence", "value") == [(20, "new")]
    warehouse.land(b'{"event_id":"e1","tags":["late"]}', sequences=[15], writer="w2")
    warehouse.load()
    assert elements(warehouse, "data__tags", "_sdc_sequence", "value") == [(20, "new")]


def test_4_9_empty_arrays_create_nothing(warehouse: Warehouse) -> None:
    """Nor do arrays of nulls."""
    warehouse.load_bodies(b'{"event_id":"e1","data":{},"tags":[],"more":[null,[]]}')
    assert tables(warehouse) == ["data"]


def test_4_10_a_null_keeps_its_place(warehouse: Warehouse) -> None:
    """A row with keys only."""
    warehouse.load_bodies(b'{"event_id":"e1","tags":["a",null,"b"]}')
    assert elements(warehouse, "data__tags", "_sdc_level_0_id", "value") == [
        (0, "a"),
        (1, None),
        (2, "b"),
    ]


def test_4_11_mixed_elements_are_split_by_type(warehouse: Warehouse) -> None:
    """The column keeps its first type, as in `data`."""
    warehouse.load_bodies(b'{"event_id":"e1","m":["2","3",4]}')
    assert elements(warehouse, "data__m", "_sdc_level_0_id", "value", "value__bi") == [
        (0, "2", None),
        (1, "3", None),
        (2, None, 4),
    ]


def test_4_12_arrays_of_arrays(warehouse: Warehouse) -> None:
    """The inner ones are a subtable of their own."""
    warehouse.load_bodies(b'{"event_id":"e1","m":[[1,2],[3]]}')
    level_0, level_1 = "_sdc_level_0_id", "_sdc_level_1_id"
    assert elements(warehouse, "data__m", level_0) == [(0,), (1,)]
    assert elements(warehouse, "data__m__value", level_0, level_1, "value") == [
        (0, 0, 1),
        (0, 1, 2),
        (1, 0, 3),
    ]


def test_4_13_scalar_object_and_array_coexist(warehouse: Warehouse) -> None:
    """There is no conflict between them."""
    warehouse.load_bodies(
        b'{"event_id":"e1","x":1}', b'{"event_id":"e2","x":{"k":2}}', b'{"event_id":"e3","x":[3]}'
    )
    assert warehouse.event("e1") == {"event_id": "e1", "x": 1}
    assert warehouse.event("e2") == {"event_id": "e2", "x__k": 2}
    assert elements(warehouse, "data__x", "_sdc_source_key_event_id", "value") == [("e3", 3)]


def test_names_of_subtables_are_kept_apart_and_kept_for_ever(warehouse: Warehouse) -> None:
    """Colliding and long paths are told apart as columns are; a later load finds the same table."""
    long = b"k" * 70
    for event_id in (b"e1", b"e2"):
        warehouse.load_bodies(
            b'{"event_id":"%s","a!":[1],"a?":[2],"%s":[3],"[]":{"x":[4]}}' % (event_id, long)
        )
    found = tables(warehouse)
    assert found[:3] == ["data", "data__a_", "data__a___2"]
    assert all(len(name) <= 63 for name in found)
    assert elements(warehouse, "data__a_", "value") == [(1,), (1,)]
    assert elements(warehouse, "data__a___2", "value") == [(2,), (2,)]
    assert warehouse.event("e2")["____x"] == "[4]"


def test_what_only_its_text_can_say_stays_json(warehouse: Warehouse) -> None:
    """Arrays that nest too deep for tables, or hold numbers beyond double, lose nothing."""
    deep = "[" * 12 + "1" + "]" * 12
    warehouse.load_bodies(b'{"event_id":"e1","big":[1e400],"deep":%s}' % deep.encode())
    assert warehouse.event("e1") == {"event_id": "e1", "big": "[1e400]"}
    deepest = tables(warehouse)[-1]
    assert deepest == "data__deep" + "__value" * 7
    assert elements(warehouse, deepest, "value") == [("[[[[1]]]]",)]
