"""The post-load webhook: programs are told of every load, at least once."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from customerio_pipeline.registry.records import Arrays
from tests.dagster_shop import Shop, opened_shop
from tests.landed_events import event
from tests.listening import Listener, listening

KEY = "post-load-key-51c0"


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Yield a program that is told."""
    with listening() as listener:
        monkeypatch.setenv("CUSTOMERIO_POST_LOAD_URL", listener.url)
        monkeypatch.setenv("CUSTOMERIO_POST_LOAD_KEY", KEY)
        yield listener


@pytest.fixture
def shop(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    warehouse_url: str,
    hook: Listener,
) -> Iterator[Shop]:
    """Yield an installation on each kind of warehouse."""
    with opened_shop(tmp_path, monkeypatch, warehouse_url) as shop:
        yield shop


def tick(shop: Shop, cursor: str | None) -> str | None:
    """Evaluate the sensor; return its new cursor."""
    sensor = shop.definitions.resolve_sensor_def("shop_post_load_sensor")
    context = dg.build_sensor_context(instance=shop.instance, cursor=cursor)
    result = sensor(context)
    return result.cursor if isinstance(result, dg.SensorResult) else cursor


def test_each_load_is_told_with_stitchs_payload(shop: Shop, hook: Listener) -> None:
    """Signed; what was there before is no news, and nothing is told twice."""
    shop.land(event("a"))
    shop.run()
    cursor = tick(shop, None)
    assert hook.requests == []
    shop.land(event("b"), event("c"), b"nonsense", first=1)
    shop.run()
    for _ in range(2):
        cursor = tick(shop, cursor)
    [(headers, body)] = hook.requests
    [told] = hook.bodies
    assert (told["integration_name"], told["destination_root_table_name"]) == ("Shop", "data")
    [table] = told["tables"]
    assert (table["destination_table_name"], table["num_rows"], table["num_rows_rejected"]) == (
        "data",
        2,
        1,
    )
    assert told["minimum_sdc_batched_at"] >= table["max_time_extracted"]
    signed = f"v0:{headers['x-signature-timestamp']}:".encode() + body
    assert headers["x-signature"] == hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()


def test_tables_of_arrays_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str, hook: Listener
) -> None:
    """Those that got rows since the last call, each with as many as it has of them now."""

    def sent(event_id: str, *arrays: str) -> bytes:
        return event(event_id, data={name: [{"id": 1}, {"id": 2}] for name in arrays})

    with opened_shop(tmp_path, monkeypatch, warehouse_url, Arrays.SUBTABLES) as shop:
        cursor = tick(shop, None)
        loads = (
            [sent("a", "recipients"), sent("b")],
            [sent("c", "recipients", "links"), sent("a", "recipients"), b"nonsense"],
        )
        first = 0
        for bodies in loads:
            shop.land(*bodies, first=first)
            first += len(bodies)
            shop.run()
            cursor = tick(shop, cursor)
    tables = [
        {each["destination_table_name"]: each["num_rows"] for each in told["tables"]}
        for told in hook.bodies
    ]
    assert tables == [
        {"data": 2, "data__data__recipients": 2},
        {"data": 2, "data__data__links": 2, "data__data__recipients": 4},
    ]
    assert [each["num_rows_rejected"] for each in hook.bodies[1]["tables"]] == [1, 0, 0]


def test_a_program_that_is_down_is_told_later(shop: Shop, hook: Listener) -> None:
    """Of all that was loaded meanwhile; loads go on."""
    cursor = tick(shop, None)
    hook.status = 503
    shop.land(event("a"))
    shop.run()
    cursor = tick(shop, cursor)
    hook.status = 200
    shop.land(event("b"), first=1)
    shop.run()
    assert tick(shop, cursor) == cursor  # not before half a minute is over
    assert cursor is not None
    tick(shop, re.sub(r'"retry_at":[0-9.]+', '"retry_at":0', cursor))
    assert [each["tables"][0]["num_rows"] for each in hook.bodies] == [2]


def test_there_is_no_sensor_without_a_webhook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ticks for nothing."""
    with opened_shop(tmp_path, monkeypatch) as shop:
        names = {each.name for each in shop.definitions.get_repository_def().sensor_defs}
    assert names == {"shop_sensor"}
