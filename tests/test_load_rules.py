"""Rules of stitch-loading, each from landing file to SQL; names carry the rule's number."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from customerio_pipeline.loading import staging
from customerio_pipeline.loading.staging import Layout
from tests.landed_bodies import RECEIVED_NS, Warehouse


@pytest.fixture(params=["one by one", "in bulk"])
def warehouse(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warehouse_url: str,
) -> Iterator[Warehouse]:
    """Give an empty warehouse of each kind, loaded in either of the two ways."""
    monkeypatch.setattr(staging, "BULK_DELIVERIES", 1 if request.param == "in bulk" else 10**9)
    warehouse = Warehouse(tmp_path, warehouse_url)
    yield warehouse
    warehouse.target.close()


def test_h4_array_of_objects_is_several_records(warehouse: Warehouse) -> None:
    """Each element is an event; one that is none is rejected alone."""
    (report,) = warehouse.load_bodies(b'[{"event_id":"a"},{"event_id":"b"},3]')
    assert warehouse.rows("SELECT event_id FROM {s}.data ORDER BY 1") == [("a",), ("b",)]
    assert warehouse.rejected() == [("3", "array element is a number, not an object")]
    assert (report.deliveries, report.events, report.inserted, report.rejected) == (1, 3, 2, 1)


def test_h8_legacy_and_current_events_share_the_table(warehouse: Warehouse) -> None:
    """Both formats land in one table, each with its own columns."""
    warehouse.load_bodies(
        b'{"event_id":"o1","event_type":"email_sent","data":{"email_id":"x"}}',
        b'{"event_id":"e1","metric":"sent","object_type":"email","timestamp":1}',
    )
    assert warehouse.event("o1") == {
        "event_id": "o1",
        "event_type": "email_sent",
        "data__email_id": "x",
    }
    assert warehouse.event("e1")["timestamp"] == 1


def test_1_1_system_columns_are_filled(warehouse: Warehouse) -> None:
    """Every row says when it was received and loaded, and its sequence."""
    warehouse.load_bodies(b'{"event_id":"e1"}')
    [row] = warehouse.rows(
        "SELECT _sdc_received_at <= _sdc_batched_at, _sdc_sequence, _sdc_table_version,"
        " _sdc_writer, _sdc_offset FROM {s}.data"
    )
    assert row == (True, 1_700_000_000_000_000_000, 0, "w0", 0)


def test_1_8_columns_are_created_in_byte_order_and_appended_later(warehouse: Warehouse) -> None:
    """Digits, upper case, underscore, lower case; a later column goes to the end."""
    warehouse.load_bodies(b'{"zeta":1,"event_id":"e1","Alpha":2}')
    names = [name for name in warehouse.columns() if name != "_sdc_key"]
    assert names == sorted(names)
    assert names[0] == "Alpha"
    assert names[-1] == "zeta"
    warehouse.load_bodies(b'{"event_id":"e2","beta":1,"Beta2":1}')
    assert list(warehouse.columns())[-2:] == ["Beta2", "beta"]


COLUMN_NAMES = [
    ("CuStOmErId", "CuStOmErId"),
    ("CUSTOMER ID", "CUSTOMER ID"),
    ("customer!id", "customer_id"),
    ("List-Unsubscribe", "List_Unsubscribe"),
    ("_customerid", "_customerid"),
    ("1d_click", "1d_click"),
    ("größe", "größe"),
    ("名前", "名前"),
    ("a.b/c$d", "a_b_c_d"),
    ("🎉", "_"),
    ("", "___2"),  # names are unique
    ('say "hi"', "say _hi_"),
    ("order", "order"),
]


def test_2_7_column_names(warehouse: Warehouse, subtests: pytest.Subtests) -> None:
    """Case, spaces, leading digits and letters of any script stay; the rest becomes ``_``."""
    warehouse.load_bodies(
        *(
            json.dumps({"event_id": str(at), key: 7}).encode()
            for at, (key, _) in enumerate(COLUMN_NAMES)
        )
    )
    events = warehouse.events()
    for at, (key, column) in enumerate(COLUMN_NAMES):
        with subtests.test(key):
            assert events[str(at)] == {"event_id": str(at), column: 7}


RESERVED_NAMES = [
    ({"_sdc_foo": 1}, "_sdc_foo_"),
    ({"_SDC_sequence": 1}, "_SDC_sequence_"),
    ({"_rjm": 1}, "_rjm_"),
    ({"data": {"st": 1}}, "data__st_"),
    ({"a__IT": 1}, "a__IT_"),
]


def test_2_9_reserved_names_get_an_underscore(
    warehouse: Warehouse, subtests: pytest.Subtests
) -> None:
    """Nothing is rejected for its name, and no system column is overwritten."""
    bodies = [
        json.dumps({"event_id": str(at), **body}).encode()
        for at, (body, _) in enumerate(RESERVED_NAMES)
    ]
    warehouse.load_bodies(*bodies)
    columns = warehouse.columns()
    for body, column in RESERVED_NAMES:
        with subtests.test(str(body)):
            assert column in columns
    sequences = warehouse.rows("SELECT _sdc_sequence FROM {s}.data ORDER BY 1")
    assert sequences == [(RECEIVED_NS + at,) for at in range(len(bodies))]


def test_2_10_long_names_are_cut_with_a_hash(warehouse: Warehouse) -> None:
    """59 bytes, ending in 8 hex digits of the full name, which `_sdc_columns` keeps."""
    long, other = "k" * 60, "k" * 60 + "2"
    warehouse.load_bodies(json.dumps({"event_id": "e1", long: 1, other: 2, "k" * 59: 3}).encode())
    names = [name for name in warehouse.columns() if name.startswith("kk")]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {59}
    assert "k" * 59 in names
    assert (long,) in warehouse.rows("SELECT full_name FROM {s}._sdc_columns")


def test_2_11_colliding_keys_get_numbers_and_keep_them(warehouse: Warehouse) -> None:
    """The first key keeps the name, for ever; no record is rejected."""
    warehouse.load_bodies(
        b'{"event_id":"e1","a!":1,"a?":2,"id":1,"ID":2,"x__b":1,"x":{"b":2},"EVENT_ID":9}'
    )
    expected = {
        "event_id": "e1",
        "a_": 1,
        "a___2": 2,
        "id": 1,
        "ID__2": 2,
        "x__b": 1,
        "x__b__2": 2,
        "EVENT_ID__2": 9,
    }
    assert warehouse.event("e1") == expected
    warehouse.load_bodies(b'{"event_id":"e2","a?":5,"ID":6}')
    assert warehouse.event("e2") == {"event_id": "e2", "a___2": 5, "ID__2": 6}


JSON_TYPES = [
    ('"abc"', "text", "abc"),
    ('""', "text", ""),
    ("12", "bigint", 12),
    ("-3", "bigint", -3),
    ("9223372036854775807", "bigint", 2**63 - 1),
    ("-9223372036854775808", "bigint", -(2**63)),
    ("3.14", "double", 3.14),
    ("16.0", "double", 16.0),
    ("1e3", "double", 1000.0),
    ("0.1234567890123456789", "double", 0.12345678901234568),
    ("true", "boolean", True),
    ('"2019-08-13T21:25:03+0000"', "text", "2019-08-13T21:25:03+0000"),
    ('"1.00"', "text", "1.00"),
    ('"0200102"', "text", "0200102"),
    ('"a\\u0000b\\ud800c\\u2028\\/"', "text", "a\ufffdb\ufffdc\u2028/"),
    ('"\\ud83c\\udf89 é"', "text", "🎉 é"),
    ('[1,2.5,"x",null,{"k":[]}]', "json", '[1,2.5,"x",null,{"k":[]}]'),
]


def test_3_json_types_decide_the_column(warehouse: Warehouse, subtests: pytest.Subtests) -> None:
    """Nothing is inferred from a value's text, nothing is coerced (3.1-3.11, 3.14, 3.15)."""
    warehouse.load_bodies(
        *(
            f'{{"event_id":"{at}","x{at}":{json_value}}}'.encode()
            for at, (json_value, _, _) in enumerate(JSON_TYPES)
        )
    )
    columns, events = warehouse.columns(), warehouse.events()
    for at, (json_value, column_type, value) in enumerate(JSON_TYPES):
        with subtests.test(json_value):
            assert columns[f"x{at}"] == column_type
            assert events[str(at)] == {"event_id": str(at), f"x{at}": value}


def test_3_4_numbers_out_of_range_keep_their_digits(warehouse: Warehouse) -> None:
    """They go to ``__st`` as text; the event loads."""
    numbers = ["9223372036854775808", "-9223372036854775809", "1e400", "9" * 5000]
    warehouse.load_bodies(*(f'{{"event_id":"{n[:9]}","n":{n}}}'.encode() for n in numbers))
    assert [event["n__st"] for event in warehouse.events().values()] == numbers
    assert "n" not in warehouse.columns()


def test_3_8_null_creates_no_column(warehouse: Warehouse) -> None:
    """A column that was only ever null is not created."""
    warehouse.load_bodies(b'{"event_id":"e1","x":null}')
    assert "x" not in warehouse.columns()


def test_3_16_of_duplicate_keys_the_last_wins(warehouse: Warehouse) -> None:
    """Whichever way the event is read."""
    warehouse.load_bodies(
        b'{"event_id":"e1","a":1,"a":2}', b'{"event_id":"e2","a":1,"s":"\\u0000","a":2}'
    )
    assert warehouse.event("e1")["a"] == 2
    assert warehouse.event("e2")["a"] == 2


def test_4_1_objects_flatten_with_two_underscores(warehouse: Warehouse) -> None:
    """Any depth up to 64; deeper is JSON text."""
    warehouse.load_bodies(b'{"event_id":"e1","a":{"b":{"c":{"d":{"e":1}}}}}')
    assert warehouse.event("e1") == {"event_id": "e1", "a__b__c__d__e": 1}
    deep = b'{"event_id":"e2","d":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}"
    warehouse.load_bodies(deep)
    [(name, text)] = [pair for pair in warehouse.event("e2").items() if pair[0] != "event_id"]
    assert warehouse.columns()[name] == "json"
    assert str(text).count('{"a":') == 5000 - 63


def test_4_9_empty_containers_create_nothing(warehouse: Warehouse) -> None:
    """Nor do they fill a column that exists: order must not matter."""
    warehouse.load_bodies(b'{"event_id":"e1","data":{},"tags":[],"more":[null]}')
    assert warehouse.event("e1") == {"event_id": "e1"}
    warehouse.load_bodies(b'{"event_id":"e2","tags":["x"]}', b'{"event_id":"e3","tags":[]}')
    assert warehouse.event("e2")["tags"] == '["x"]'
    assert warehouse.event("e3") == {"event_id": "e3"}


def test_4_13_scalar_object_and_array_under_one_key(warehouse: Warehouse) -> None:
    """Each has its column, nothing is lost."""
    warehouse.load_bodies(
        b'{"event_id":"e1","x":1}', b'{"event_id":"e2","x":{"k":2}}', b'{"event_id":"e3","x":[3]}'
    )
    assert warehouse.event("e1") == {"event_id": "e1", "x": 1}
    assert warehouse.event("e2") == {"event_id": "e2", "x__k": 2}
    assert warehouse.event("e3") == {"event_id": "e3", "x__js": "[3]"}


def test_5_1_and_5_2_columns_come_and_stay(warehouse: Warehouse) -> None:
    """A new key is a new column; a key that disappears leaves its column."""
    warehouse.load_bodies(b'{"event_id":"e1","a":1}')
    warehouse.load_bodies(b'{"event_id":"e2","metric":"sent"}')
    assert warehouse.rows("SELECT event_id, a, metric FROM {s}.data ORDER BY 1") == [
        ("e1", 1, None),
        ("e2", None, "sent"),
    ]


def test_5_4_another_type_goes_to_a_sibling_column(warehouse: Warehouse) -> None:
    """The column keeps its name and first type, in one batch as in several."""
    bodies = [
        b'{"event_id":"e1","k":1}',
        b'{"event_id":"e2","k":1.5}',
        b'{"event_id":"e3","k":true}',
        b'{"event_id":"e4","k":"x"}',
        b'{"event_id":"e5","k":2}',
    ]
    warehouse.load_bodies(*bodies[:2])
    warehouse.load_bodies(*bodies[2:])
    assert warehouse.rows("SELECT k, k__do, k__bo, k__st FROM {s}.data ORDER BY event_id") == [
        (1, None, None, None),
        (None, 1.5, None, None),
        (None, None, True, None),
        (None, None, None, "x"),
        (2, None, None, None),
    ]


def test_declared_types_do_not_depend_on_the_first_event(warehouse: Warehouse) -> None:
    """Ids of persons are text, numeric ids bigint, whatever comes first."""
    warehouse.load_bodies(
        b'{"event_id":"e1","timestamp":"soon","data":{"customer_id":42,"campaign_id":"12"}}'
    )
    warehouse.load_bodies(
        b'{"event_id":"e2","timestamp":5,"data":{"customer_id":"007","campaign_id":12}}'
    )
    assert warehouse.event("e1") == {
        "event_id": "e1",
        "timestamp__st": "soon",
        "data__customer_id__bi": 42,
        "data__campaign_id__st": "12",
    }
    assert warehouse.event("e2") == {
        "event_id": "e2",
        "timestamp": 5,
        "data__customer_id": "007",
        "data__campaign_id": 12,
    }


def test_5_13_values_without_room_go_to_the_overflow(tmp_path: Path, warehouse: Warehouse) -> None:
    """Above the column limit nothing is rejected and nothing is lost."""
    small = Warehouse(tmp_path / "small", layout=Layout(max_columns=9))
    small.load_bodies(b'{"event_id":"e1","a":1,"b":2}', b'{"event_id":"e2","c":[1],"d":{"e":"x"}}')
    assert small.event("e1") == {"event_id": "e1", "a": 1, "b": 2}
    assert json.loads(str(small.event("e2")["_sdc_overflow"])) == {"c": [1], "d__e": "x"}
    wide = {f"key{n}": n for n in range(3000)}
    warehouse.load_bodies(json.dumps({"event_id": "wide", **wide}).encode())
    event = warehouse.event("wide")
    overflow = json.loads(str(event.pop("_sdc_overflow")))
    assert {**event, **overflow} == {"event_id": "wide", **wide}
    assert len(warehouse.columns()) <= 1002
    small.target.close()


def test_6_3_the_greatest_sequence_wins_in_any_order(warehouse: Warehouse) -> None:
    """A strictly greater one replaces, an equal or smaller one does not."""
    for writer, metric, sequence in [
        ("w1", b"sent", 20),
        ("w0", b"opened", 10),
        ("w0", b"clicked", 20),
    ]:
        warehouse.land(
            b'{"event_id":"e1","metric":"' + metric + b'"}', writer=writer, sequences=[sequence]
        )
        warehouse.load()
    assert warehouse.event("e1")["metric"] == "sent"
    warehouse.land(b'{"event_id":"e1","metric":"bounced"}', writer="w0", sequences=[21])
    (report,) = warehouse.load()
    assert warehouse.event("e1")["metric"] == "bounced"
    assert (report.inserted, report.updated, report.duplicates) == (0, 1, 1)


def test_6_5_duplicates_in_one_batch_are_reduced_first(warehouse: Warehouse) -> None:
    """One row, that of the greatest sequence."""
    warehouse.land(
        *(b'{"event_id":"e1","m":"%s"}' % name for name in (b"a", b"b", b"c")), sequences=[5, 7, 6]
    )
    (report,) = warehouse.load()
    assert warehouse.event("e1")["m"] == "b"
    assert (report.events, report.inserted, report.duplicates, report.updated) == (3, 1, 2, 0)


def test_6_6_the_whole_row_is_replaced(warehouse: Warehouse) -> None:
    """Keys missing from the newer event become null."""
    warehouse.load_bodies(b'{"event_id":"e1","a":1}')
    warehouse.load_bodies(b'{"event_id":"e1","b":2}')
    assert warehouse.event("e1") == {"event_id": "e1", "b": 2}


REJECTED = [
    (b'{"metric":"sent"}', "event_id is missing"),
    (b'{"event_id":null}', "event_id is null, not text"),
    (b'{"event_id":""}', "event_id is empty"),
    (b'{"event_id":7}', "event_id is a number, not text"),
    (b'{"event_id":18446744073709551616}', "event_id is a number, not text"),
    (b'{"event_id":true}', "event_id is true or false, not text"),
    (b'{"event_id":{"a":1}}', "event_id is an object, not text"),
    (b'{"event_id":["a"]}', "event_id is an array, not text"),
    (b'{"event_id":"%s"}' % (b"x" * 1025), "event_id is longer than 1024 characters"),
    (b"{}", "event_id is missing"),
    (b"[]", "body is an empty array"),
    (b"", "body is empty"),
    (b"7", "body is a number, not an object"),
    (b'"text"', "body is text, not an object"),
    (b"null", "body is null, not an object"),
    (b'{"x":NaN,"event_id":"e"}', "body is not JSON: expected a value at character 5"),
    (b'{"event_id":"e",}', "body is not JSON: expected a key in quotes at character 16"),
    (b'{"event_id":"e"', "body is not JSON: expected ',' or '}' at character 15"),
    (b'{"event_id":"e"} x', "body is not JSON: more text after the end at character 17"),
    (b'{"event_id":"\xff"}', "body is not UTF-8: invalid start byte at byte 13"),
]


def test_6_8_and_7_what_cannot_be_a_row_is_rejected_with_a_reason(
    warehouse: Warehouse, subtests: pytest.Subtests
) -> None:
    """It says why; its neighbours load."""
    bodies = []
    for at, (body, _) in enumerate(REJECTED):
        bodies += [b'{"event_id":"%d"}' % at, body]
    (report,) = warehouse.load_bodies(*bodies)
    for (body, reason), rejected in zip(REJECTED, warehouse.rejected(), strict=True):
        with subtests.test(reason):
            assert rejected == (body.decode(errors="replace"), reason)
    assert warehouse.events().keys() == {str(at) for at in range(len(REJECTED))}
    assert (report.events, report.inserted, report.rejected) == (40, 20, 20)
    rows = warehouse.rows(
        'SELECT table_name, writer, "offset", _sdc_received_at <= _sdc_rejected_at'
        ' FROM {s}._sdc_rejected ORDER BY "offset"'
    )
    assert rows == [("data", "w0", 2 * at + 1, True) for at in range(len(REJECTED))]


def test_event_id_may_have_1024_characters(warehouse: Warehouse) -> None:
    """The limit counts characters, not bytes."""
    event_id = "é" * 1024
    warehouse.load_bodies(json.dumps({"event_id": event_id}).encode())
    assert warehouse.event(event_id) == {"event_id": event_id}


def test_compressed_bodies_are_unpacked(warehouse: Warehouse) -> None:
    """A sender that compresses is understood; what does not unpack is rejected."""
    body = b'{"event_id":"e1","a":1}'
    warehouse.land(gzip.compress(body), b"not gzip", content_encoding="gzip")
    warehouse.load()
    assert warehouse.event("e1") == {"event_id": "e1", "a": 1}
    assert warehouse.rejected()[0][1] == "body is not valid gzip, or too long"


def test_a_byte_order_mark_is_tolerated(warehouse: Warehouse) -> None:
    """RFC 8259 allows a reader to ignore it."""
    warehouse.load_bodies(b'\xef\xbb\xbf{"event_id":"e1"}')
    assert warehouse.event("e1") == {"event_id": "e1"}


def test_samples_of_customer_io_all_end_somewhere(warehouse: Warehouse) -> None:
    """Every published payload becomes a row or a rejected record with a reason."""
    lines = (Path(__file__).parent / "data" / "samples.jsonl").read_bytes().splitlines()
    payloads = [json.loads(line)["payload"] for line in lines]
    for number, payload in enumerate(payloads):
        if "event_id" in payload:
            payload["event_id"] = f"{payload['event_id']}-{number}"
    warehouse.load_bodies(*(json.dumps(payload).encode() for payload in payloads))
    with_id = sum("event_id" in payload for payload in payloads)
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(with_id,)]
    assert len(warehouse.rejected()) == len(payloads) - with_id
