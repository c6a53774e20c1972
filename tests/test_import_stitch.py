"""``import --stitch-table``: Stitch's table as a file becomes the events that it was made of."""

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from customerio_pipeline.errors import ImportFileError
from tests.importing import Importing
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA, Warehouse

RECEIVED = datetime(2023, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)

POSTGRES_CSV = b"""\
event_id,metric,timestamp,data__customer_id__st,data__customer_id__bi,data__age__do,data__it,\
data__machine,data__note,data__plan,_sdc_received_at,_sdc_sequence,_sdc_batched_at,_sdc_table_version
e1,sent,1683356889,007,,,,t,"",3,2023-05-06 07:08:09.123456+00,20,2023-05-06 07:09:00+00,0
e2,opened,1683356890,,42,16,,,"two
lines",4,2023-05-06 07:08:10+00,21,2023-05-06 07:09:00+00,0
e1,clicked,1683356889,008,,1.5,yes,f,,5,2023-05-06 07:08:11+00,22,2023-05-06 07:09:00+00,0
"""
"""As PostgreSQL's COPY writes it."""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importing]:
    """Give an installation."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        yield Importing(Installation(*parts), tmp_path)


def landed_events(local: Importing) -> list[dict[str, Any]]:
    """Return the events in the landing files."""
    return [json.loads(row["body"]) for row in local.landed()]


@pytest.mark.parametrize("packed", [False, True])
def test_csv_of_postgresql(local: Importing, *, packed: bool) -> None:
    """Versions collapse, split columns fold, documented fields have their types."""
    content = gzip.compress(POSTGRES_CSV) if packed else POSTGRES_CSV
    [found] = local.imported(local.write(content), "--stitch-table")
    assert found["records"] == 2
    assert landed_events(local) == [
        {
            "event_id": "e2",
            "metric": "opened",
            "timestamp": 1683356890,
            "data": {"customer_id": 42, "age": 16.0, "note": "two\nlines", "plan": 4},
        },
        {
            "event_id": "e1",
            "metric": "clicked",
            "timestamp": 1683356889,
            "data": {"customer_id": "008", "age": 1.5, "it": "yes", "machine": False, "plan": 5},
        },
    ]
    assert [row["_sdc_sequence"] for row in local.landed()] == [21, 22]
    assert local.landed()[0]["received_at"] == datetime(2023, 5, 6, 7, 8, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("columns", "event"),
    [
        ({"data__age": 15, "data__age__fl": None}, {"data": {"age": 15}}),
        ({"data__age": None, "data__age__fl": 16.0}, {"data": {"age": 16.0}}),
        ({"a__string": "x", "a__bigint": None}, {"a": "x"}),
        ({"a__string": "x"}, {"a": {"string": "x"}}),
        ({"a__bi": 1}, {"a": 1}),
        ({"a__bi": 1, "a__k": 2}, {"a": {"bi": 1, "k": 2}}),
        ({"a": None, "a__st": "x", "a__k": None}, {"a": "x"}),
        (
            {"data__customer_id__bi": 7, "data__customer_id__k": None},
            {"data": {"customer_id": 7}},
        ),
        ({"x": 1, "x__k": 2}, {"x": 1, "x__k": 2}),
        ({"x": None, "x__k": 2}, {"x": {"k": 2}}),
        ({"a____b": 1, "__c": 2}, {"a____b": 1, "__c": 2}),
        ({"data": '{"n":9007199254740993,"a":[1]}'}, {"data": {"n": 9007199254740993, "a": [1]}}),
        ({"data": {"a": {"b": [1, 2]}}}, {"data": {"a": {"b": [1, 2]}}}),
        (
            {"data__recipients": '[{"device_id":"d"}]'},
            {"data": {"recipients": [{"device_id": "d"}]}},
        ),
        ({"v": "1", "v__va": "[1]"}, {"v": "1", "v__va": [1]}),
        ({"_rjm_x": 1, "_sdc_deleted_at": 2}, {}),
    ],
)
def test_columns_become_keys(
    local: Importing, columns: dict[str, object], event: dict[str, object]
) -> None:
    """Of every warehouse's way of nesting and splitting (stitch-loading 2.13, 4, 5)."""
    row = {"event_id": "e1", **columns, "_sdc_sequence": 7, "_sdc_received_at": RECEIVED}
    path = local.folder / "table.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    local.imported(str(path), "--stitch-table")
    [found] = landed_events(local)
    assert found == {"event_id": "e1", **event}
    [delivery] = local.landed()
    assert (delivery["_sdc_sequence"], delivery["received_at"]) == (7, RECEIVED)


def test_upper_case_of_snowflake(local: Importing) -> None:
    """Columns are lower case elsewhere; VARIANT is an object again."""
    path = local.folder / "table.parquet"
    row = {"EVENT_ID": "e1", "DATA": '{"customer_id":"7"}', "_SDC_SEQUENCE": 7}
    pq.write_table(pa.Table.from_pylist([row]), path)
    local.imported(str(path), "--stitch-table")
    assert landed_events(local) == [{"event_id": "e1", "data": {"customer_id": "7"}}]


def test_rows_without_an_id_are_not_lost(local: Importing) -> None:
    """They are rejected when they are loaded, each of them."""
    path = local.folder / "table.parquet"
    rows = [{"event_id": None, "metric": each, "_sdc_sequence": 7} for each in ("sent", "opened")]
    pq.write_table(pa.Table.from_pylist(rows), path)
    local.imported(str(path), "--stitch-table")
    local.warehouse.load()
    assert len(local.warehouse.rejected()) == 2


def test_another_table_is_refused(local: Importing) -> None:
    """With the column that it lacks."""
    result = local.run("import", SCHEMA, "--stitch-table", local.write(b"event_id,a\ne1,2\n"))
    assert isinstance(result.exception, ImportFileError)
    assert "_sdc_sequence" in str(result.exception)
    usage = local.run("import", SCHEMA, "--stitch-table", local.write(b""), "--column", "x")
    assert usage.exit_code == 2


_key = st.sampled_from(["customer_id", "plan", "age", "city"])
_scalar = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text("aé7", max_size=3)
_event = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["e1", "e2", "e3", "e4", "e5", "e6"]),
        "timestamp": st.integers(0, 10**9),
    },
    optional={
        "metric": st.sampled_from(["sent", "opened"]),
        "data": st.dictionaries(
            _key, _scalar | st.dictionaries(st.sampled_from(["x", "y"]), _scalar, max_size=2)
        ),
    },
)


@settings(
    deadline=None,
    phases=[Phase.generate],  # each example is an installation: shrinking takes minutes
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(events=st.lists(_event, min_size=1, max_size=6, unique_by=lambda event: event["event_id"]))
def test_a_table_comes_back_as_it_was(
    events: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Delivered, loaded, exported as Parquet, imported and loaded: the same rows.

    Each event once: the table does not know what superseded versions were like.
    """
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        url = f"duckdb:///{home / 'w.duckdb'}"
        with installed(home, url, patch) as parts:
            local = Importing(Installation(*parts), home)
            before = Warehouse(home / "before")
            before.land(*(json.dumps(event).encode() for event in events))
            before.load()
            file = home / "data.parquet"
            with duckdb.connect(before.file, read_only=True) as connection:
                connection.sql(f"FROM {SCHEMA}.data").write_parquet(str(file))
            local.imported(str(file), "--stitch-table")
            local.warehouse.load()
            assert local.values() == Importing(Installation(before, local.registry), home).values()
            before.target.close()
