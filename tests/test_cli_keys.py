"""``customerio-pipeline keys``, as a user types it."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.errors import PipelineError
from customerio_pipeline.registry.records import LiveKey
from customerio_pipeline.registry.registry import Registry

SECRET = "0123456789abcdef"  # noqa: S105  a test's


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Give the registry of an installation with the integration Shop."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
        registry.create("Shop")
        yield registry


def run(*arguments: str, stdin: str = "") -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["keys", *arguments], input=stdin)


def add(secret: str = SECRET) -> str:
    """Add a key and return its id."""
    result = run("add", "shop", "--json", stdin=f"{secret}\n")
    assert result.exit_code == 0, result.output
    return str(json.loads(result.output)["key_id"])


def test_a_key_is_read_from_standard_input_and_never_shown(registry: Registry) -> None:
    """Not in the list either; the mode is `require` from the first key on."""
    before = json.loads(run("list", "shop", "--json").output)
    added = run("add", "shop", stdin=f" {SECRET}\n")
    after = run("list", "shop")

    assert (before["mode"], before["in_force"], before["keys"]) == ("require", "off", [])
    [key] = registry.keys.policy(registry.find("shop")).keys
    assert key.secret == SECRET
    assert key.id in added.output
    assert key.id in after.output
    assert "Mode require: a delivery that no key signed is kept and not loaded." in after.output
    assert SECRET not in added.output + after.output + run("list", "shop", "--json").output
    assert SECRET not in repr(key)


@pytest.mark.parametrize("secret", ["", " ", "two words", "tab\there", "x" * 513])
def test_what_cannot_be_a_key_is_refused(secret: str) -> None:
    """In a sentence that does not repeat it."""
    error = run("add", "shop", stdin=f"{secret}\n").exception

    assert isinstance(error, PipelineError)
    assert error.usage
    assert "signing key" in str(error)
    assert not secret.strip() or secret not in str(error)


def test_the_same_key_twice_and_too_many_keys_are_refused() -> None:
    """The sentence names the key that is there, or the command that makes room."""
    first = add()
    assert first in str(run("add", "shop", stdin=SECRET).exception)
    for number in range(7):
        add(f"key-{number}")
    assert "keys remove shop" in str(run("add", "shop", stdin="one-more").exception)


def test_a_removed_key_is_forgotten_and_its_id_stays(registry: Registry, tmp_path: Path) -> None:
    """The last one is removed only after a question."""
    key_id = add()
    assert run("remove", "shop", key_id, stdin="n\n").exit_code == 1
    asked = run("remove", "shop", key_id, stdin="y\n")

    assert asked.exit_code == 0
    assert "until then signatures are not checked" in asked.output
    assert registry.keys.policy(registry.find("shop")).keys == ()
    [shown] = json.loads(run("list", "shop", "--json").output)["keys"]
    assert (shown["key_id"], shown["state"]) == (key_id, "removed")
    assert "no signing key" in str(run("remove", "shop", key_id, "--yes").exception)
    assert "no signing key" in str(run("remove", "shop", "key_unknown", "--yes").exception)


def test_several_keys_and_the_mode(registry: Registry) -> None:
    """Receivers learn both; the newest key comes first."""
    first, second = add("one"), add("two")
    assert run("mode", "shop", "record").exit_code == 0
    [url] = registry.snapshot().live_urls

    assert url.signatures.keys == (LiveKey(second, "two"), LiveKey(first, "one"))
    assert url.signatures.in_force == "record"
    assert run("mode", "shop", "sometimes").exit_code == 2


def test_keys_of_a_deleted_integration_are_forgotten(registry: Registry) -> None:
    """Another integration that continues its schema begins without a key."""
    add()
    registry.delete(registry.find("shop"))
    registry.create("Shop", reuse_schema=True)

    assert registry.keys.policy(registry.find("shop")).keys == ()
    assert all(url.signatures.keys == () for url in registry.snapshot().live_urls)
