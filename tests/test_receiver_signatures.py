"""Signatures at the receiver: verdicts, modes, how much may be parked (customerio-webhooks 3)."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from customerio_pipeline.registry.records import Integration, SignatureMode
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.simulator.signing import sign
from tests.running_receiver import (
    Receiver,
    registry_of,
    running_receiver,
    wait_landed,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("receiver-signatures")

KEY = "signing-secret"
BODY = b'{"event_id":"e1","metric":"sent"}'
PUBLISHED = [
    (
        "signing-secret",
        "1614265384",
        b'{"event_id":"abc","object_type":"email","metric":"delivered"}',
        "6f55cf23f9b73a2ff07733fe04421f64ce9ec5e409696edda6b2a80311944230",
    ),
    (
        "secret",
        "1704720412",
        (
            b'{"data":{"action_id":37,"broadcast_id":6,"customer_id":"0200102","identifiers":'
            b'{"id":"0200102"},"delivery_id":"RAECAAFxEqBRJ6UXtUdDSeFe_L8=","recipient":"test@example.com","subject":"hello"}'
            b',"event_id":"01E4S9V7WSQK80RJZC6ATRQX8B","trigger_event_id":"21E4C3CT6YDC7Y4N7FE1GWWABC"'
            b',"object_type":"email","metric":"unsubscribed","timestamp":1585692122}'
        ),
        "c31b27d93c80cce95c23dc4ec6e7c9e9b755ad0d8c36ab0d0691fb1c3f7b63e3",
    ),
]


class Case(NamedTuple):
    """An integration of a test's own at the receiver."""

    receiver: Receiver
    registry: Registry
    integration: Integration
    token: str

    def add_key(self, secret: str = KEY) -> str:
        """Add a key; return its id once every worker has it."""
        key = self.registry.keys.add(self.integration, secret)
        self.wait_known()
        return key.id

    def wait_known(self) -> None:
        """Wait until every worker has read the registry.

        One that is called under a URL that it does not know does so at once.
        """
        _, probe = self.registry.create(f"probe {time.time_ns()}")
        for _ in range(16):  # which worker takes a connection is chance
            assert self.receiver.post(probe.token).status_code == 200

    def send(
        self, body: bytes = BODY, key: str | None = KEY, timestamp: int | None = None
    ) -> httpx.Response:
        """Send one delivery, signed with `key`."""
        if key is None:
            return self.receiver.post(self.token, body)
        timestamp = int(time.time()) if timestamp is None else timestamp
        return self.receiver.post(
            self.token,
            body,
            **{"x-cio-timestamp": str(timestamp), "x-cio-signature": sign(key, timestamp, body)},
        )

    def verdicts(self, count: int) -> list[str]:
        """Return the verdicts of the first `count` deliveries, in the order of receipt."""
        rows = wait_landed(self.receiver.landing, self.integration.schema, count)
        return [row["signature"] for row in sorted(rows, key=lambda row: row["_sdc_sequence"])]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """Two workers, a tolerance of an hour, and room for five held deliveries or 100 KB."""
    with running_receiver(
        tmp_path_factory.mktemp("home"),
        "--port=0",
        "--workers=2",
        signature_tolerance_seconds=3600,
        held_max_deliveries=5,
        held_max_bytes=100_000,
        admin_port=0,
    ) as receiver:
        yield receiver


@pytest.fixture
def case(receiver: Receiver, request: pytest.FixtureRequest) -> Iterator[Case]:
    """Give a new integration without keys."""
    registry = registry_of(receiver.home)
    integration, url = registry.create(f"case {request.node.name[:60]}", f"case_{time.time_ns()}")
    yield Case(receiver, registry, integration, url.token)
    registry.close()


def test_without_a_key_nothing_is_checked(case: Case) -> None:
    """Whatever the signature says, there is nothing to check it with."""
    assert case.send(key="wrong").status_code == 200
    assert case.send(key=None).status_code == 200

    assert case.verdicts(2) == ["unchecked", "unchecked"]


@pytest.mark.parametrize(("key", "timestamp", "body", "signature"), PUBLISHED)
def test_published_signatures_are_valid(
    tmp_path: Path, key: str, timestamp: str, body: bytes, signature: str
) -> None:
    """The vendor's own vectors; old ones, so no tolerance is set."""
    with running_receiver(tmp_path, "--port=0", "--workers=1") as receiver:
        registry = registry_of(tmp_path)
        integration, url = registry.create("vector")
        key_id = registry.keys.add(integration, f" {key}\n").id
        registry.close()
        for given in (signature, signature.upper(), f"v0={signature}"):
            headers = {"x-cio-timestamp": timestamp, "x-cio-signature": given}
            assert receiver.post(url.token, body, **headers).status_code == 200
        rows = wait_landed(receiver.landing, "vector", 3)

    assert [row["signature"] for row in rows] == [f"valid:{key_id}"] * 2 + ["invalid"]


def test_with_a_key_what_it_did_not_sign_is_invalid(case: Case) -> None:
    """Every delivery is answered with 200 and landed; the verdict tells them apart."""
    key_id = case.add_key()
    answers = [
        case.send(),
        case.send(key="wrong"),
        case.send(key=None),
        case.send(timestamp=int(time.time()) - 4000),
        case.receiver.http.post(
            f"{case.receiver.base_url}/v1/webhooks/{case.token}",
            content=BODY,
            headers=[(b"x-cio-signature", b"\xe9"), (b"x-cio-timestamp", b"\xff")],
        ),
    ]

    assert {answer.status_code for answer in answers} == {200}
    assert case.verdicts(5) == [f"valid:{key_id}", "invalid", "invalid", "stale", "invalid"]


def test_several_keys_are_valid_until_they_are_removed(case: Case) -> None:
    """The verdict names the key that signed."""
    first, second = case.add_key("first"), case.add_key("second")
    case.send(key="first")
    case.send(key="second")
    case.registry.keys.remove(case.integration, first)
    case.wait_known()
    case.send(key="first")

    assert case.verdicts(3) == [f"valid:{first}", f"valid:{second}", "invalid"]


def test_mode_record_notes_the_verdict_and_holds_nothing(case: Case) -> None:
    """Such a delivery is loaded: the landing column says so."""
    case.registry.keys.set_mode(case.integration, SignatureMode.RECORD)
    case.add_key()
    for _ in range(7):  # more than may be held
        assert case.send(key="wrong").status_code == 200

    assert case.verdicts(7) == ["invalid:loaded"] * 7


def test_mode_off_checks_nothing(case: Case) -> None:
    """Not even where there is a key."""
    case.registry.keys.set_mode(case.integration, SignatureMode.OFF)
    case.add_key()
    case.send(key="wrong")

    assert case.verdicts(1) == ["unchecked"]


def test_beyond_the_quota_the_unsigned_get_401_and_the_signed_200(case: Case) -> None:
    """All workers count together; a change of the keys begins a new count."""
    case.add_key()
    statuses = [case.send(key="wrong").status_code for _ in range(12)]

    assert statuses == [200] * 5 + [401] * 7
    assert case.send().status_code == 200
    # A wrong clock makes everything stale: Customer.io's deliveries are kept all the same.
    stale = [case.send(timestamp=int(time.time()) - 4000).status_code for _ in range(6)]
    assert stale == [200] * 6
    case.add_key("another")
    assert case.send(key="wrong").status_code == 200
    verdicts = case.verdicts(13)
    assert (verdicts.count("invalid"), verdicts.count("stale")) == (6, 6)
    assert {line["reason"] for line in case.receiver.logged("request", status=401)} == {"held_full"}


def test_the_quota_counts_bytes_too(case: Case) -> None:
    """Of bodies."""
    case.add_key()
    statuses = [case.send(bytes(40_000), key="wrong").status_code for _ in range(4)]

    assert statuses == [200, 200, 401, 401]


def test_metrics_count_verdicts_and_no_log_shows_a_key(case: Case) -> None:
    """In the exposition of all workers."""
    case.add_key("a-key-nobody-may-see")
    case.send(key="a-key-nobody-may-see")
    case.send(key="wrong")
    port = case.receiver.wait_logged("admin_listening")["port"]

    def counted() -> bool:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
        return (
            'customerio_receiver_signatures_total{verdict="valid"} 0' not in text
            and 'customerio_receiver_signatures_total{verdict="invalid"} 0' not in text
            and "signatures_total" in text
        )

    wait_until(counted, "verdicts in the metrics")
    assert "a-key-nobody-may-see" not in case.receiver.output
