"""The simulated events, held against the vendor's own schemas."""

import json
import unicodedata
from collections import defaultdict
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import pytest

from customerio_pipeline.simulator.events import SimulatedEvent, generate
from customerio_pipeline.simulator.ids import ulid
from customerio_pipeline.simulator.malformed import MALFORMED
from customerio_pipeline.simulator.signing import sign

_SPEC_PAYLOADS = Path(__file__).with_name("data") / "spec_payloads.jsonl"

# Fields of all events of a delivery (customerio-webhooks 1.3, 1.4); the samples have one variant.
_COMMON = {
    "action_id",
    "broadcast_id",
    "campaign_id",
    "content_id",
    "customer_id",
    "delivery_id",
    "identifiers",
    "journey_id",
    "newsletter_id",
    "parent_action_id",
    "transactional_message_id",
    "trigger_event_id",
    "trigger_id",
}
# Can be subscribed to, yet have no schema (customerio-webhooks 1.7).
_WITHOUT_SCHEMA = {
    ("email", "deferred"),
    ("slack", "converted"),
    ("webhook", "converted"),
    ("sms", "dropped"),
}
_SUBSCRIPTIONS = {"subscribed", "unsubscribed", "cio_subscription_preferences_changed"}

Payload = dict[str, Any]


@pytest.fixture(scope="module")
def many() -> list[SimulatedEvent]:
    """Return enough bodies for every kind to be among them."""
    return list(islice(generate(1), 20_000))


@pytest.fixture(scope="module")
def payloads(many: list[SimulatedEvent]) -> list[Payload]:
    """Return the well-formed events among them, in order."""
    return [json.loads(event.body) for event in many if not event.malformed]


def _kind(payload: Payload) -> tuple[str, str]:
    return payload.get("object_type") or payload.get("object_type_type", ""), payload["metric"]


def _fields_by_kind(payloads: list[Payload]) -> dict[tuple[str, str], dict[str, set[type]]]:
    fields: dict[tuple[str, str], dict[str, set[type]]] = defaultdict(lambda: defaultdict(set))
    for payload in payloads:
        for name, value in payload["data"].items():
            fields[_kind(payload)][name].add(type(value))
    return fields


def test_same_seed_gives_the_same_bodies() -> None:
    """A failure can be repeated, and a benchmark compares like with like."""
    first = list(islice(generate(7), 3000))
    assert list(islice(generate(7), 3000)) == first
    assert list(islice(generate(8), 3000)) != first


def test_every_documented_kind_occurs_with_its_fields(payloads: list[Payload]) -> None:
    """Every object type and metric of the vendor's schemas, with their fields and types."""
    current = [payload for payload in payloads if "metric" in payload]
    ours = _fields_by_kind(current)
    lines = _SPEC_PAYLOADS.read_text(encoding="utf-8").splitlines()
    theirs = _fields_by_kind([json.loads(line)["payload"] for line in lines])

    # The vendor's example of a drafted push says "attempted".
    assert set(theirs) | {("push", "drafted")} <= set(ours)
    for kind in set(ours) - set(theirs) - _WITHOUT_SCHEMA - {("push", "drafted")}:
        assert kind[1] in _SUBSCRIPTIONS
    for kind in set(ours) & set(theirs):
        for name in set(ours[kind]) - _COMMON:
            assert name in theirs[kind], (kind, name)
            assert ours[kind][name] - {type(None)} <= theirs[kind][name], (kind, name)


def test_subscription_changes_have_the_fields_of_people(payloads: list[Payload]) -> None:
    """``email`` + ``unsubscribed`` has two shapes, told apart by ``email_address``."""
    shapes = {
        "email_address" in payload["data"]
        for payload in payloads
        if payload.get("metric") == "unsubscribed" and payload["object_type"] == "email"
    }
    assert shapes == {True, False}
    keys = {
        key
        for payload in payloads
        if payload.get("metric") == "cio_subscription_preferences_changed"
        for key in payload
    }
    assert {"object_type", "object_type_type"} <= keys


def test_event_ids_are_ulids_in_the_order_of_time(many: list[SimulatedEvent]) -> None:
    """26 characters whose first ten tell the time, a little after the event's own."""
    seen: set[str] = set()
    last = ""
    for event in many[:5000]:
        if event.malformed:
            continue
        assert event.event_id is not None
        assert len(event.event_id) == 26
        if event.event_id not in seen:
            seen.add(event.event_id)
            assert event.event_id[:10] >= last
            last = event.event_id[:10]
    # The specification's own example, 2016-07-30T23:54:10.259Z.
    assert ulid(1_469_922_850_259, Random(0)).startswith("01ARZ3NDEK")


def test_event_happens_shortly_before_its_id_is_made() -> None:
    """With a clock, events carry the current time; the id is made up to 2 s later."""
    for event in islice(generate(1, now=lambda: 1_700_000_000.5, malformed=0), 500):
        assert 0 < 1_700_000_000.5 - json.loads(event.body)["timestamp"] < 3


def test_shares_are_as_asked(many: list[SimulatedEvent], payloads: list[Payload]) -> None:
    """3 % duplicates, 0.1 % malformed, 1 % legacy; bodies of 0.5 to 2 KB on average."""
    assert 0.0005 < mean(event.malformed for event in many) < 0.002
    ids = [event.event_id for event in many if event.event_id]
    assert 0.025 < 1 - len(set(ids)) / len(ids) < 0.035
    assert 0.005 < mean("event_type" in payload for payload in payloads) < 0.02
    assert 500 < mean(len(event.body) for event in many) < 2000


def test_nothing_odd_when_not_asked_for() -> None:
    """Shares of zero leave plain events only."""
    events = list(islice(generate(3, duplicates=0, malformed=0, legacy=0), 5000))
    assert len({event.event_id for event in events}) == 5000
    for event in events:
        assert json.loads(event.body)["event_id"] == event.event_id
        assert b"event_type" not in event.body


def test_duplicates_are_repeats_and_changed_copies(many: list[SimulatedEvent]) -> None:
    """Latest wins can only be seen where a repeat differs."""
    bodies: dict[str, set[bytes]] = defaultdict(set)
    repeats = 0
    for event in many:
        if event.event_id:
            repeats += event.body in bodies[event.event_id]
            bodies[event.event_id].add(event.body)
    changed = sum(len(versions) > 1 for versions in bodies.values())
    assert changed > 50
    assert repeats > 2 * changed


def test_deliveries_live_plausible_lives(payloads: list[Payload]) -> None:
    """Of one delivery, sent comes before delivered, opened, clicked; others come in between."""
    order = ["drafted", "attempted", "sent", "delivered", "opened", "clicked", "converted"]
    lives: dict[str, list[str]] = defaultdict(list)
    seen: set[str] = set()
    for payload in payloads:
        if payload["event_id"] in seen or payload.get("metric") not in order:
            continue
        seen.add(payload["event_id"])
        if "delivery_id" in payload["data"]:
            lives[payload["data"]["delivery_id"]].append(payload["metric"])
    for metrics in lives.values():
        assert metrics == sorted(metrics, key=order.index)
    assert ["sent", "delivered", "opened", "clicked", "clicked", "converted"] in lives.values()
    ids = [payload["data"].get("delivery_id") for payload in payloads]
    assert mean(one == other for one, other in pairwise(ids) if one) < 0.05


def test_values_are_the_ones_that_break_loaders(payloads: list[Payload]) -> None:
    """Leading zeros, every way of a blank person, four variants, JSON in text, all scripts."""
    data = [payload["data"] for payload in payloads]
    customer_ids = [one.get("customer_id", "missing") for one in data]
    assert any(str(key).startswith("0") for key in customer_ids)
    assert {"", None, "missing"} <= set(customer_ids)
    for variant in ("campaign_id", "broadcast_id", "newsletter_id", "transactional_message_id"):
        assert sum(variant in one for one in data) > 100
    assert {type(one.get("transactional_message_id")) for one in data} == {int, str, type(None)}
    assert any(one["campaign_id"] is None for one in data if "campaign_id" in one)
    contents = [one["content"] for one in data if "content" in one]
    assert any(text.startswith("{") and json.loads(text) for text in contents)
    assert any("<!DOCTYPE html>" in text for text in contents)
    subjects = "".join(one["subject"] or "" for one in data if "subject" in one)
    names = {unicodedata.name(character, "NONE").split()[0] for character in set(subjects)}
    assert {"ARABIC", "HEBREW", "CJK", "HANGUL", "DEVANAGARI", "FIRE", "COMBINING"} <= names


def test_legacy_events_have_the_old_shape(payloads: list[Payload]) -> None:
    """customerio-webhooks 1.8: ``event_type``, ids as text, the person's attributes."""
    legacy = [payload for payload in payloads if "event_type" in payload]
    assert {payload["event_type"] for payload in legacy} >= {"email_drafted", "email_clicked"}
    for payload in legacy:
        assert "metric" not in payload
        assert isinstance(payload["data"]["campaign_id"], str)
        is_draft = payload["event_type"] == "email_drafted"
        assert ("variables" in payload["data"]) is not is_draft
    customer = legacy[-1]["data"].get("variables", legacy[0]["data"].get("variables"))["customer"]
    assert customer["vault_trial-end_date_unix"] > 2**32


@pytest.mark.parametrize("way", MALFORMED)
def test_malformed_body_has_no_usable_event_id(way: str) -> None:
    """Whatever the loader makes of it, no row may come of it."""
    event = json.loads(next(generate(5, malformed=0)).body)
    for seed in range(20):
        body = MALFORMED[way](event, Random(seed))
        assert _usable_ids(body) == []


def _usable_ids(body: bytes) -> list[str]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(body.decode(), parse_constant=refuse)
    except ValueError:
        return []
    records = value if isinstance(value, list) else [value]
    ids = [record.get("event_id") for record in records if isinstance(record, dict)]
    return [one for one in ids if isinstance(one, str) and 0 < len(one) <= 1024]


def test_malformed_bodies_come_in_many_ways() -> None:
    """A stream of nothing else has no event in it."""
    events = list(islice(generate(1, duplicates=0, malformed=1), 2000))
    assert all(event.malformed and event.event_id is None for event in events)
    assert not any(_usable_ids(event.body) for event in events)
    assert b"" in {event.body for event in events}


@pytest.mark.parametrize(
    ("key", "timestamp", "body", "signature"),
    [
        (
            "signing-secret",
            1614265384,
            b'{"event_id":"abc","object_type":"email","metric":"delivered"}',
            "6f55cf23f9b73a2ff07733fe04421f64ce9ec5e409696edda6b2a80311944230",
        ),
        (
            "secret",
            1704720412,
            (
                b'{"data":{"action_id":37,"broadcast_id":6,"customer_id":"0200102","identifiers":'
                b'{"id":"0200102"},"delivery_id":"RAECAAFxEqBRJ6UXtUdDSeFe_L8=","recipient":'
                b'"test@example.com","subject":"hello"},"event_id":"01E4S9V7WSQK80RJZC6ATRQX8B",'
                b'"trigger_event_id":"21E4C3CT6YDC7Y4N7FE1GWWABC","object_type":"email",'
                b'"metric":"unsubscribed","timestamp":1585692122}'
            ),
            "c31b27d93c80cce95c23dc4ec6e7c9e9b755ad0d8c36ab0d0691fb1c3f7b63e3",
        ),
    ],
)
def test_signature_is_as_published(key: str, timestamp: int, body: bytes, signature: str) -> None:
    """customerio-webhooks 3: the two vectors that others published."""
    assert sign(key, timestamp, body) == signature
