"""The management page over HTTP: who gets in, what forms do, what never leaks."""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.schema_names import derive_schema
from tests.running_page import PASSWORD, Page, running_page
from tests.running_receiver import wait_landed, wait_until

MARKUP = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def signed_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Give a visitor who is signed in, to whom two integrations belong."""
    with running_page(tmp_path_factory.mktemp("page")) as (_, page):
        page.sign_in()
        page.create("Stitch Customerio")
        page.create(MARKUP)
        yield page


def test_an_integration_from_creation_to_deletion(tmp_path: Path) -> None:
    """Create, deliver, generate, rotate, pause, resume, rename, delete; as the registry has it."""
    with running_page(tmp_path) as (receiver, page):
        assert page.sign_in().headers["location"] == "/"
        assert "Add a Customer.io integration" in page.get("/").text
        first = page.create("Stitch Customerio")
        root = "/integrations/stitch_customerio"
        assert receiver.http.post(first, content=b'{"event_id":"e1"}').status_code == 200
        assert first not in page.get(f"{root}/urls").text
        second = page.post(f"{root}/urls", f"{root}/urls").text
        assert second.count("/v1/webhooks/") == 1
        full = page.post(f"{root}/urls", f"{root}/settings")
        assert (full.status_code, "revoke one first" in full.text) == (409, True)
        registry = Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")
        integration = registry.find("Stitch Customerio")
        old, new = [url.id for url in registry.urls(integration)]
        assert new in second
        revoke = f"{root}/urls/{old}/revoke"
        assert page.post(revoke, revoke).headers["location"] == f"{root}/urls?done=revoked"
        wait_until(
            lambda: receiver.http.post(first, content=b"{}").status_code == 401, "revoked URL"
        )
        again = page.post(revoke, f"{root}/settings")
        assert (again.status_code, "revoked already" in again.text) == (409, True)
        page.post(f"{root}/pause", f"{root}/settings")
        assert "paused" in page.get("/").text.lower()
        page.post(f"{root}/resume", f"{root}/settings")
        assert registry.find("Stitch Customerio").state == "active"
        page.post(f"{root}/rename", f"{root}/settings", name="Messages")
        assert registry.find("Messages").schema == "stitch_customerio"
        outcome = page.post(f"{root}/test-event", root)
        assert "Taken and safely stored" in outcome.text
        wait_landed(receiver.landing, "stitch_customerio", 2)
        page.post(f"{root}/delete", f"{root}/delete")
        assert registry.integrations() == []
        registry.close()
        assert page.get(root).status_code == 404
        assert receiver.stop() == 0
        assert PASSWORD not in receiver.output
        assert first.rpartition("/")[2] not in receiver.output


def test_signing_keys_by_the_page(tmp_path: Path) -> None:
    """Add, refuse, set the mode, remove; the test event is signed; no key is ever shown."""
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        root = "/integrations/stitch_customerio"
        shown = f"{root}/signatures"
        assert "None yet" in page.get(shown).text
        added = page.post(f"{root}/keys", shown, key=" the-signing-key ")
        assert added.headers["location"] == f"{shown}?done=key-added"
        again = page.post(f"{root}/keys", shown, key="the-signing-key")
        assert (again.status_code, "already" in again.text) == (422, True)
        assert page.post(f"{root}/keys", shown, key=" ").status_code == 422
        assert "Taken and safely stored" in page.post(f"{root}/test-event", root).text
        with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
            integration = registry.find("Stitch Customerio")
            [key] = registry.keys.list(integration)
            [row] = wait_landed(receiver.landing, "stitch_customerio", 1)
            assert row["signature"] == f"valid:{key.id}"
            assert page.post(f"{root}/signature-mode", shown, mode="record").status_code == 303
            assert registry.keys.policy(integration).mode == "record"
            assert page.post(f"{root}/signature-mode", shown, mode="none").status_code == 422
            remove = f"{root}/keys/{key.id}/remove"
            assert "only signing key" in page.get(remove).text
            assert page.post(remove, remove).status_code == 303
            assert registry.keys.policy(integration).keys == ()
            assert page.post(remove, shown).status_code == 409
            assert page.get(remove).status_code == 409
        assert key.id in page.get(shown).text
        assert "the-signing-key" not in page.get(shown).text + receiver.output


def test_rules_on_fields_by_the_page(tmp_path: Path) -> None:
    """Add, refuse, move, remove; what was typed is kept and escaped; the key is never shown."""
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        root = "/integrations/stitch_customerio"
        shown = f"{root}/fields"
        assert "None yet" in page.get(shown).text
        added = page.post(f"{root}/rules", shown, pattern="*email*", action="hash")
        assert added.headers["location"] == f"{shown}?done=rule-added"
        assert "holds for what is loaded from now on" in page.get(f"{shown}?done=rule-added").text
        page.post(f"{root}/rules", shown, pattern="data__x", action="keep")
        for fields, field in (
            ({"pattern": MARKUP, "action": "drop"}, "pattern"),
            ({"pattern": "*EMAIL*", "action": "drop"}, "pattern"),
            ({"pattern": "event_id", "action": "drop"}, "pattern"),
            ({"pattern": "x", "action": "mask"}, "action"),
            ({"pattern": "x"}, "action"),
        ):
            refused = page.post(f"{root}/rules", shown, **fields)
            assert refused.status_code == 422
            assert f'id="{field}-error"' in refused.text
            assert "<script>alert" not in refused.text
        with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
            integration = registry.find("Stitch Customerio")
            email, other = registry.field_rules.list(integration)
            move = f"{root}/rules/{other.id}/move"
            assert page.post(move, shown, position="1").status_code == 303
            assert registry.field_rules.list(integration) == [other, email]
            for position in ("0", "3", "x", "", "9" * 5000):
                assert page.post(move, shown, position=position).status_code == 409
            remove = f"{root}/rules/{email.id}/remove"
            assert "loaded as it is" in page.get(remove).text
            assert page.post(remove, remove).headers["location"] == f"{shown}?done=rule-removed"
            assert registry.field_rules.list(integration) == [other]
            assert page.post(remove, shown).status_code == 409
            assert page.get(remove).status_code == 409
            secret = registry.field_rules.policy(integration).secret
        text = page.get(shown).text
        assert "data__x" in text
        assert page.stranger().get(shown).status_code == 303
        assert receiver.stop() == 0
        assert secret
        assert secret not in text + receiver.output
        assert receiver.logged("rule_removed")[0]["rule_id"] == email.id


def test_nothing_without_a_session(tmp_path: Path) -> None:
    """Every page leads to the sign-in, every form does nothing; metrics and health stay open."""
    with running_page(tmp_path) as (_, page):
        page.sign_in()
        page.create("Stitch Customerio")
        stranger = page.stranger()
        for path in (
            "/",
            "/new",
            "/new/preview?name=a",
            "/cards",
            "/integrations/stitch_customerio",
        ):
            response = stranger.get(path)
            assert response.status_code == 303, path
            assert response.headers["location"].startswith("/sign-in")
        token = stranger.csrf("/sign-in")
        delete = "/integrations/stitch_customerio/delete"
        assert stranger.http.post(delete, data={"csrf": token}).status_code == 303
        assert page.get(delete).status_code == 200
        assert stranger.get("/metrics").status_code == 200
        assert stranger.get("/static/page.css").status_code == 200


def test_forms_of_other_sites_do_nothing(tmp_path: Path) -> None:
    """Without our token, with that of another session, or said by the browser (CSRF)."""
    with running_page(tmp_path) as (_, page):
        page.sign_in()
        other = page.stranger()
        other.sign_in()
        own, foreign = page.csrf("/new"), other.csrf("/new")
        for token, headers in (
            ("", {}),
            (foreign, {}),
            (own, {"sec-fetch-site": "cross-site"}),
            (own, {"sec-fetch-site": "same-site"}),
        ):
            form = {"csrf": token, "name": "Stolen"}
            assert page.http.post("/new", data=form, headers=headers).status_code == 403
        assert "Stolen" not in page.get("/").text
        assert page.http.post("/new", json={"name": "Stolen"}).status_code in (400, 403)
        cookie = page.http.post("/sign-in", data={}).headers.get("set-cookie", "")
        assert "customerio_session" not in cookie


def test_a_session_begins_at_sign_in_and_ends_everywhere(tmp_path: Path) -> None:
    """A cookie from before is worth nothing (fixation), nor one that signed out."""
    with running_page(tmp_path) as (_, page):
        page.get("/sign-in")
        before = page.http.cookies["customerio_session"]
        answer = page.sign_in()
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        after = page.http.cookies["customerio_session"]
        assert after != before
        thief = page.stranger()
        thief.http.cookies["customerio_session"] = before
        assert thief.get("/").status_code == 303
        thief.http.cookies["customerio_session"] = after
        assert thief.get("/").status_code == 200
        page.post("/sign-out")
        assert thief.get("/").status_code == 303


def test_passwords_cannot_be_tried_on_and_on(tmp_path: Path) -> None:
    """Five failures, then nobody gets in from there for a while, not even with the password."""
    with running_page(tmp_path) as (receiver, page):
        for at in range(5):
            wrong = page.sign_in(f"wrong password {at}")
            assert (wrong.status_code, "not the password" in wrong.text) == (401, True)
        limited = page.sign_in()
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) > 0
        assert receiver.stop() == 0
        assert "wrong password" not in receiver.output


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 5000}, "name"),
        ({"name": "\x07\x00"}, "name"),
        ({"name": MARKUP, "schema": MARKUP}, "schema"),
        ({"name": "A", "schema": "../../etc"}, "schema"),
        ({"name": "A", "arrays": "both"}, "arrays"),
        ({"name": "stitch customerio"}, "name"),
        ({"name": "Stitch-Customerio"}, "schema"),
        ({"name": "数据"}, "name"),
    ],
)
def test_bad_fields_are_told_beside_the_field(
    signed_in: Page, fields: dict[str, str], field: str
) -> None:
    """422, the field named, what was typed kept and escaped, nothing made."""
    response = signed_in.post("/new", "/new", **fields)
    assert response.status_code == 422
    assert f'id="{field}-error"' in response.text
    assert "<script>alert" not in response.text
    assert signed_in.get("/").text.count('class="card integration"') == 2


def test_markup_in_names_is_text(signed_in: Page) -> None:
    """Wherever the name is shown; and headers that would let no script run anyway."""
    root = f"/integrations/{derive_schema(MARKUP)}"
    for path in ("/", root, f"{root}/urls", f"{root}/settings", f"{root}/delete"):
        response = signed_in.get(path)
        assert response.status_code == 200, path
        assert "<script>alert" not in response.text
        assert "&lt;script&gt;alert(1)" in response.text
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/integrations/nothing",
        "/integrations/..%2f..%2fregistry.sqlite",
        "/integrations/stitch_customerio/urls/nothing/revoke/more",
        "/static/..%2fapp.py",
        "/static/../app.py",
        "/sign-out/..%00",
    ],
)
def test_addresses_of_nothing_are_404(signed_in: Page, path: str) -> None:
    """A page that says so; no file beside the static ones."""
    response = signed_in.get(path)
    assert response.status_code in (404, 400)
    assert "create_app" not in response.text


def test_next_leads_nowhere_else(signed_in: Page) -> None:
    """After the sign-in the browser stays on this site."""
    for wanted in ("//evil.example", "https://evil.example", "/\\evil.example"):
        response = signed_in.http.get("/sign-in", params={"next": wanted})
        assert response.headers["location"] == "/"


def test_a_password_of_ones_own(tmp_path: Path) -> None:
    """Made by the command, shown once; the earlier sessions end; kept as a hash only."""
    with running_page(tmp_path, admin_password="") as (receiver, page):
        assert "customerio-pipeline admin-password" in page.get("/sign-in").text
        printed = subprocess.run(
            [str(Path(receiver.process.args[0])), "admin-password"],  # type: ignore[index,arg-type]
            env={"CUSTOMERIO_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        password = printed.split()[5]
        assert page.sign_in(password).status_code == 303
        assert password.encode() not in (tmp_path / "registry.sqlite").read_bytes()


def test_the_log_is_json_and_says_who_did_what(tmp_path: Path) -> None:
    """Sign-ins with their address, changes with the schema."""
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        assert receiver.stop() == 0
        assert receiver.logged("signed_in", client="127.0.0.1")
        assert receiver.logged("integration_created", schema="stitch_customerio")
        assert all(json.loads(line) for line in receiver.output.splitlines())


def test_a_reload_replaces_the_page_too(tmp_path: Path) -> None:
    """SIGHUP after an upgrade: old code cannot show new templates; sessions go on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with running_page(tmp_path, admin_port=port) as (receiver, page):
        page.sign_in()
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_logged("reloaded")
        wait_until(lambda: len(receiver.logged("admin_listening")) == 2, "the new page listens")
        first, second = receiver.pids("admin")
        assert first != second
        assert page.get("/").status_code == 200
