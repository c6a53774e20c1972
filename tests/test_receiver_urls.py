"""URLs that are made and revoked while the receiver runs (design C8)."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from customerio_pipeline.registry.records import NewUrl
from customerio_pipeline.registry.registry import Registry
from tests.running_receiver import (
    Receiver,
    registry_of,
    running_receiver,
    wait_landed,
    wait_until,
)
from tests.steady_load import SteadyLoad

pytestmark = pytest.mark.xdist_group("receiver-urls")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """A receiver with two workers; which of them takes a new connection is chance."""
    home = tmp_path_factory.mktemp("home")
    with running_receiver(home, "--port=0", "--workers=2") as receiver:
        yield receiver


@pytest.fixture
def registry(receiver: Receiver) -> Iterator[Registry]:
    """The receiver's registry, as the command line opens it."""
    registry = registry_of(receiver.home)
    yield registry
    registry.close()


def answers(receiver: Receiver, token: str, connections: int = 12) -> set[int]:
    """Return the statuses that deliveries over connections of their own get."""
    return {receiver.post(token).status_code for _ in range(connections)}


def test_a_new_url_works_at_once_in_every_worker(receiver: Receiver, registry: Registry) -> None:
    """Not one 401, which would cost the sender an hour, however soon the first delivery comes."""
    for at in range(5):
        integration, first = registry.create(f"new {at}")
        for url in (first, registry.generate_url(integration)):
            found = answers(receiver, url.token, connections=4)
            assert 200 in found
            assert 401 not in found


def test_a_revoked_url_stops_in_every_worker(receiver: Receiver, registry: Registry) -> None:
    """The other URL of the integration goes on working."""
    integration, first = registry.create("revoked")
    second = registry.generate_url(integration)
    assert answers(receiver, first.token) == {200}
    registry.revoke_url(integration, first.id)
    wait_until(lambda: answers(receiver, first.token) == {401}, "revoked everywhere")
    assert answers(receiver, second.token) == {200}


def test_a_deleted_integrations_urls_stop(receiver: Receiver, registry: Registry) -> None:
    """Deleting an integration revokes all its URLs."""
    integration, url = registry.create("deleted")
    assert answers(receiver, url.token) == {200}
    registry.delete(integration)
    wait_until(lambda: answers(receiver, url.token) == {401}, "deleted everywhere")


def test_a_paused_integration_is_still_received(receiver: Receiver, registry: Registry) -> None:
    """Only loading pauses."""
    integration, url = registry.create("paused")
    registry.pause(integration)
    assert answers(receiver, url.token) == {200}


def test_a_url_is_rotated_under_load_without_a_gap(tmp_path: Path) -> None:
    """Generate a second, move half the traffic, revoke the first: 401 within a second, no loss.

    What was refused comes again, to the second, as Customer.io repeats it once the URL is changed
    there.
    """
    with (
        running_receiver(tmp_path, "--port=0", "--workers=2", access_log=False) as receiver,
        closing(registry_of(tmp_path)) as registry,
    ):
        integration, first = registry.create("rotated")
        load = SteadyLoad(first.token, receiver.port)
        revoked_at = 0.0

        def begun(url: NewUrl, status: int) -> list[float]:
            found = (url.token, status)
            return [at.begun_at for at in load.answers if (at.token, at.status) == found]

        def rotate() -> None:
            nonlocal revoked_at
            wait_until(lambda: len(begun(first, 200)) >= 100, "the first is in use")
            second = registry.generate_url(integration)
            load.tokens = (first.token, second.token)
            wait_until(lambda: len(begun(second, 200)) >= 100, "the second is in use")
            assert set(load.statuses) == {200}
            registry.revoke_url(integration, first.id)
            revoked_at = time.monotonic()
            # Half of the clients keep their connection, so all workers are asked on and on.
            wait_until(lambda: len(begun(first, 401)) >= 300, "the first is refused")

        load.run_while(rotate)
        assert load.broken == []
        assert set(load.statuses) == {200, 401}
        refused = [answer for answer in load.answers if answer.status == 401]
        assert {answer.token for answer in refused} == {first.token}
        # A machine that is late itself makes the workers late as well.
        assert max(begun(first, 200)) - revoked_at < 1 + load.worst_delay
        for answer in refused:
            assert receiver.post(load.tokens[1], answer.body).status_code == 200
        rows = wait_landed(receiver.landing, "rotated", len(load.sent))
        assert Counter(row["body"] for row in rows) == Counter(load.sent)
        # Each worker has a writer of its own; both took deliveries to either URL.
        writers = {(row["url_id"], row["writer"]) for row in rows}
        assert len(writers) == 4
