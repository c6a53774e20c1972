"""``customerio-pipeline api-tokens``, as a user types it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.errors import PipelineError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["api-tokens", *arguments])


def test_a_token_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    """256 bits; the list shows its id, name and state."""
    assert "No API token yet" in run("list").output
    created = json.loads(run("create", "CI", "--json").output)
    assert len(created["token"]) == 43
    listed = run("list").output
    assert created["token_id"] in listed
    assert "live" in listed
    for path in tmp_path.glob("registry.sqlite*"):
        assert created["token"].encode() not in path.read_bytes()
    assert created["token"] not in listed + run("list", "--json").output
    assert "Revoked token_" in run("revoke", created["token_id"]).output
    [token] = json.loads(run("list", "--json").output)
    assert (token["name"], token["state"]) == ("CI", "revoked")
    assert "Authorization: Bearer" in run("create", "CI").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", " "), "The name is empty"),
        (("create", "x" * 101), "101 characters"),
        (("create", "a\x07b"), "control character"),
        (("revoke", "token_00000000"), 'no live API token "token_00000000"'),
    ],
)
def test_mistakes_are_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    """And exit code 2."""
    error = run(*arguments).exception
    assert isinstance(error, PipelineError)
    assert error.usage
    assert sentence in str(error)
