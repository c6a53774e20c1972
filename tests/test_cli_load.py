"""``load``, ``query`` and ``status`` as a user types them."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from customerio_pipeline.cli import main
from customerio_pipeline.registry.registry import Registry
from tests.landed_bodies import SCHEMA, Warehouse

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs ``customerio-pipeline`` on a home of its own.

    In this process: starting one takes longer than most commands.
    """
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(sys, "argv", ["customerio-pipeline", *arguments])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def landed(tmp_path: Path) -> Warehouse:
    """Give an integration with four landed deliveries."""
    with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
        registry.create("Stitch Customerio")
    warehouse = Warehouse(tmp_path)
    warehouse.land(
        b'{"event_id":"e1","metric":"sent"}',
        b'{"event_id":"e1","metric":"sent"}',
        '{"event_id":"e2","metric":"geöffnet"}'.encode(),
        b"no JSON",
    )
    return warehouse


def test_arrays_have_tables_of_their_own_where_asked_for(run: Run, tmp_path: Path) -> None:
    """The choice is made with the integration."""
    created = run("integrations", "create", "Stitch Customerio", "--arrays", "subtables")
    assert created.returncode == 0, created.stderr
    Warehouse(tmp_path).land(b'{"event_id":"e1","tags":["a","b"]}')
    assert run("load").returncode == 0
    found = run("query", "SELECT value FROM stitch_customerio.data__tags ORDER BY 1", "--json")
    assert json.loads(found.stdout) == [{"value": "a"}, {"value": "b"}]


@pytest.mark.usefixtures("landed")
def test_load_then_query_then_status(run: Run) -> None:
    """From landing to a table, a CSV and JSON; a second load has nothing to do."""
    result = run("load", "Stitch Customerio", "--json")
    assert json.loads(result.stdout) == [
        {
            "schema": SCHEMA,
            "files": 1,
            "deliveries": 4,
            "events": 4,
            "inserted": 2,
            "updated": 0,
            "duplicates": 1,
            "rejected": 1,
            "held": 0,
        }
    ]
    assert run("load").stdout == "stitch_customerio: nothing to load\n"
    sql = "SELECT event_id, metric FROM stitch_customerio.data ORDER BY 1"
    assert run("query", sql, "--format", "csv").stdout == "event_id,metric\ne1,sent\ne2,geöffnet\n"
    assert json.loads(run("query", sql, "--json").stdout)[0] == {"event_id": "e1", "metric": "sent"}
    assert "geöffnet" in run("query", sql).stdout
    [status] = json.loads(run("status", "--json").stdout)
    assert status["landed"] == 4
    assert (status["rows"], status["rejected"], status["waiting"]) == (2, 1, 0)
    assert (status["state"], status["live_urls"]) == ("active", 1)


@pytest.mark.usefixtures("landed")
def test_status_before_the_first_load(run: Run) -> None:
    """What waits is seen although there is no warehouse yet."""
    [status] = json.loads(run("status", "--json").stdout)
    assert (status["landed"], status["waiting"], status["rows"]) == (4, 4, 0)
    assert "stitch_customerio" in run("status").stdout


def test_nothing_yet(run: Run) -> None:
    """An empty installation says what to do."""
    assert "integrations create" in run("status").stdout
    assert run("load").stdout == ""


@pytest.mark.usefixtures("landed")
def test_paused_integrations_load_only_when_named(run: Run) -> None:
    """A pause stops loading, not receiving; naming one is meant."""
    assert run("integrations", "pause", "Stitch Customerio").returncode == 0
    assert run("load").stdout == ""
    result = run("load", SCHEMA)
    assert result.returncode == 1
    assert "is paused" in result.stderr


@pytest.mark.usefixtures("landed")
def test_mistakes_give_one_sentence(run: Run) -> None:
    """No traceback; exit code 2 where the input was at fault, 1 where the world was."""
    unknown = run("load", "Nobody")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("Error: ")
    assert unknown.stderr.count("\n") == 1
    missing = run("query", "SELECT 1")
    assert missing.returncode == 1
    assert "does not exist yet" in missing.stderr
    run("load")
    wrong = run("query", "SELECT nothing FROM nowhere")
    assert wrong.returncode == 2
    assert "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    forbidden = run("query", "DELETE FROM stitch_customerio.data")
    assert forbidden.returncode == 2
    assert "read-only" in forbidden.stderr


def test_a_wrong_setting_is_named_and_not_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has the variable, never its value."""
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", "mysql://user:secret@host/db")
    result = run("status")
    assert result.returncode == 2
    assert "CUSTOMERIO_WAREHOUSE" in result.stderr
    assert "secret" not in result.stderr


@pytest.mark.usefixtures("landed")
def test_query_takes_odd_statements(run: Run, tmp_path: Path) -> None:
    """No statement gives a traceback, none writes a file, no header is read as markup."""
    run("load")
    for nothing in ("", ";", "/* a comment */"):
        result = run("query", nothing)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "[/x]" in run("query", 'SELECT 1 AS "[/x]"').stdout
    for statement in (
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}'",
    ):
        assert run("query", statement).returncode == 2
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "other.duckdb").exists()


def test_commands_know_the_addresses_of_what_runs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL made beside a running `up` on other ports calls those; a variable still decides."""
    addresses = {"public_url": "http://127.0.0.1:28080", "dagster_url": "http://127.0.0.1:1"}
    (tmp_path / "addresses.json").write_text(json.dumps(addresses))
    assert "http://127.0.0.1:28080/v1/webhooks/" in run("integrations", "create", "A").stdout
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", "https://hooks.example.com")
    assert "https://hooks.example.com/v1/webhooks/" in run("integrations", "create", "B").stdout
