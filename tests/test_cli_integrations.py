"""``customerio-pipeline integrations``, ``urls`` and ``config``, as a user types them."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from customerio_pipeline.cli import main
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import hash_token

_NOBODY = "http://127.0.0.1:9"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a local installation of its own, with no Dagster running."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", "https://hooks.example.com/cio")
    monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", _NOBODY)
    # Wide enough that no table folds what the tests look for.
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line."""

    def command(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["customerio-pipeline", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return command


def _live_urls(home: Path) -> set[tuple[bytes, str]]:
    with closing(Registry.open(f"sqlite:///{home}/registry.sqlite")) as registry:
        return {(live.token_hash, live.schema) for live in registry.snapshot().live_urls}


def _json(ended: Ended) -> Any:  # noqa: ANN401  whatever the command printed
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def test_create_prints_schema_and_url_once(run: Run, home: Path) -> None:
    """The printed URL works, says that it is shown only now, and what to do with it."""
    created = run("integrations", "create", "Stitch Customerio")

    assert created.code == 0
    assert "stitch_customerio" in created.out
    (url,) = (word for word in created.out.split() if word.startswith("https://"))
    start, _, token = url.rpartition("/")
    assert start == "https://hooks.example.com/cio/v1/webhooks"
    assert _live_urls(home) == {(hash_token(token), "stitch_customerio")}
    assert "shown only now" in created.out
    assert "Reporting Webhooks" in created.out
    for later in (["integrations", "show", "stitch_customerio"], ["integrations", "list"]):
        assert token not in run(*later).out


def test_create_as_json(run: Run, home: Path) -> None:
    """Programs get the same facts."""
    created = _json(run("integrations", "create", "Mail (EU)", "--schema", "eu", "--json"))

    token = created["webhook_url"].rpartition("/")[2]
    assert _live_urls(home) == {(hash_token(token), "eu")}
    assert (created["name"], created["schema"], created["state"]) == ("Mail (EU)", "eu", "active")
    assert created["dagster_reloaded"] is False


def test_local_url_is_pointed_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that Customer.io cannot reach is useless to a newcomer who pastes it."""
    monkeypatch.delenv("CUSTOMERIO_PUBLIC_URL")
    assert "CUSTOMERIO_PUBLIC_URL" in run("integrations", "create", "X").out


def test_list_and_show(run: Run) -> None:
    """Integrations by name, with state and URLs; markup in a name is only text."""
    assert "integrations create" in run("integrations", "list").out
    run("integrations", "create", "[/red] Événements 📧")
    run("integrations", "create", "Another")

    assert "[/red] Événements 📧" in run("integrations", "list").out
    listed = _json(run("integrations", "list", "--json"))
    assert [(one["name"], one["schema"]) for one in listed] == [
        ("[/red] Événements 📧", "red_evenements_"),
        ("Another", "another"),
    ]
    (url_id,) = listed[1]["live_urls"]
    shown = _json(run("integrations", "show", "ANOTHER", "--json"))
    assert shown["schema"] == "another"
    assert [(url["url_id"], url["state"]) for url in shown["urls"]] == [(url_id, "live")]
    assert url_id in run("integrations", "show", "another").out


def test_life_of_an_integration(run: Run, home: Path) -> None:
    """Rename, pause, resume and delete take the name or the schema."""
    run("integrations", "create", "Old")
    assert "still old" in run("integrations", "rename", "old", "New").out
    assert run("integrations", "pause", "NEW").code == 0
    assert _json(run("integrations", "show", "old", "--json"))["state"] == "paused"
    assert run("integrations", "resume", "old").code == 0
    assert _json(run("integrations", "show", "old", "--json"))["state"] == "active"
    assert run("integrations", "delete", "new", "--yes").code == 0
    assert _json(run("integrations", "list", "--json")) == []
    assert _live_urls(home) == set()
    assert run("integrations", "create", "Old").code == 2
    assert run("integrations", "create", "Old", "--reuse-schema").code == 0


@pytest.mark.parametrize(("answer", "is_kept"), [("", True), ("y\n", False)])
def test_delete_asks_first(home: Path, answer: str, *, is_kept: bool) -> None:
    """The real command, in a process of its own: no answer means no."""
    with closing(Registry.open(f"sqlite:///{home}/registry.sqlite")) as registry:
        registry.create("X")
    deleted = subprocess.run(
        [str(Path(sys.executable).with_name("customerio-pipeline")), "integrations", "delete", "X"],
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (deleted.returncode != 0) is is_kept
    assert bool(_live_urls(home)) is is_kept


def test_urls_are_rotated(run: Run, home: Path) -> None:
    """Generate a second, revoke the first; a third needs a free place."""
    run("integrations", "create", "X")
    generated = run("urls", "generate", "X")
    assert "shown only now" in generated.out
    assert run("urls", "generate", "X").code == 2
    first, second = _json(run("urls", "list", "X", "--json"))
    assert first["url_id"] in run("urls", "list", "x").out

    revoked = run("urls", "revoke", "X", first["url_id"])
    assert f"still live: {second['url_id']}" in revoked.out
    assert run("urls", "revoke", "X", first["url_id"]).code == 2
    third = _json(run("urls", "generate", "X", "--json"))
    token = third["webhook_url"].rpartition("/")[2]
    assert (hash_token(token), "x") in _live_urls(home)
    run("urls", "revoke", "X", second["url_id"])
    assert "no URL of it is live" in run("urls", "revoke", "X", third["url_id"]).out
    assert _live_urls(home) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["integrations", "create", ""],
        ["integrations", "create", "日本"],
        ["integrations", "create", "x" * 101],
        ["integrations", "create", "tab\t"],
        ["integrations", "create", "X", "--schema", "Not Plain"],
        ["integrations", "create", "X", "--schema", "pg_catalog"],
        ["integrations", "create", "taken!"],
        ["integrations", "create", "TAKEN", "--schema", "other"],
        ["integrations", "rename", "taken", ""],
        ["integrations", "show", "nothing"],
        ["integrations", "pause", "\udcff"],
        ["integrations", "delete", "nothing", "--yes"],
        ["urls", "generate", "nothing"],
        ["urls", "revoke", "taken", "url_00000000"],
    ],
)
def test_mistake_is_one_sentence(run: Run, arguments: list[str]) -> None:
    """What the user got wrong ends with exit 2 and says what to do, without a traceback."""
    run("integrations", "create", "taken")
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("Error: ")
    assert ended.err.count("\n") == 1


def test_registry_that_cannot_be_reached_is_not_the_users_mistake(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 1, and no password in the sentence."""
    monkeypatch.setenv("CUSTOMERIO_REGISTRY", "postgresql://me:pass-word@127.0.0.1:1/db")
    ended = run("integrations", "list")
    assert ended.code == 1
    assert "pass-word" not in ended.err
    assert ended.err.startswith("Error: The registry postgresql://127.0.0.1:1/db")


@pytest.fixture
def webserver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Answer as Dagster's webserver does; return the requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(f"{self.path} {json.loads(body)['query']}")
            answer = {
                "data": {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry"}}
            }
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", f"http://127.0.0.1:{server.server_port}")
        yield requests
        server.shutdown()
        thread.join()


def test_running_dagster_is_told_of_every_change(run: Run, webserver: list[str]) -> None:
    """New integrations show up in the web UI without restarting anything."""
    changes = [
        ["create", "X"],
        ["rename", "X", "Y"],
        ["pause", "Y"],
        ["resume", "Y"],
        ["delete", "Y", "--yes"],
    ]
    for count, change in enumerate(changes, start=1):
        assert "was told" in run("integrations", *change).out
        assert len(webserver) == count
    assert webserver[0].startswith("/graphql")
    assert "reloadRepositoryLocation" in webserver[0]
    run("integrations", "list")
    assert len(webserver) == len(changes)


def test_config_shows_what_is_in_force_and_no_secret(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived paths are filled in; passwords never show."""
    values = _json(run("config", "--json"))
    assert values["CUSTOMERIO_HOME"] == str(home)
    assert values["CUSTOMERIO_LANDING"] == str(home / "landing")
    assert values["CUSTOMERIO_REGISTRY"] == f"sqlite:///{home}/registry.sqlite"
    assert values["CUSTOMERIO_MAX_BODY_BYTES"] == 32 * 1024 * 1024
    assert values["CUSTOMERIO_DAGSTER_POSTGRES_URL"] is None

    monkeypatch.setenv(
        "CUSTOMERIO_REGISTRY", "postgresql://me:pass@wo:rd@db:5432/x?sslmode=require"
    )
    monkeypatch.setenv(
        "CUSTOMERIO_DAGSTER_POSTGRES_URL", "postgresql://db/x?password=pass-word&a=b"
    )
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", "https://me:pass-word@hooks.example.com")
    ended = run("config", "--json")
    values = _json(ended)
    assert values["CUSTOMERIO_REGISTRY"] == "postgresql://me:***@db:5432/x?sslmode=require"
    assert values["CUSTOMERIO_DAGSTER_POSTGRES_URL"] == "postgresql://db/x?password=***&a=b"
    assert values["CUSTOMERIO_PUBLIC_URL"] == "https://me:***@hooks.example.com"
    assert "CUSTOMERIO_HOME" in run("config").out


def test_bad_setting_stops_at_the_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence names the variable, never its value."""
    monkeypatch.setenv("CUSTOMERIO_REGISTRY", "mysql://me:pass-word@db/x")
    ended = run("config")
    assert ended.code == 2
    assert ended.err.startswith("Error: CUSTOMERIO_REGISTRY is wrong")
    assert "pass-word" not in ended.err
