"""URLs that are made and revoked while the receiver runs (design C8)."""

from collections.abc import Iterator

import pytest

from customerio_pipeline.registry.registry import Registry
from tests.running_receiver import Receiver, registry_of, running_receiver, wait_until

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
