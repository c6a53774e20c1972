"""The management page in a real browser: the story of an integration, and who can use it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, expect, sync_playwright
from playwright.sync_api import Page as Tab

from customerio_pipeline.cli import cli
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.simulator.signing import sign
from tests.landed_events import event
from tests.running_page import PASSWORD, running_page
from tests.running_receiver import landed_rows, registry_of, wait_landed, wait_until

_PATHS = ("/connect", "", "/urls", "/signatures", "/settings", "/delete")
"""Pages of an integration."""

_HOSTILE = (
    "'\"></code></pre></title><script>window.stolen=1</script>"
    "<img src='stolen' onerror='window.stolen=1'>"
    '<b hx-get="/stolen" hx-trigger="load">{{ 7 * 7 }}'
)
"""It leaves whatever it is put into, then tries a script, a handler, htmx and the template."""

_CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")

pytestmark = [
    pytest.mark.skipif(_CHROMIUM is None, reason="there is no chromium (set CHROMIUM to its path)"),
    pytest.mark.xdist_group("browser"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the browser once."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Give a window of its own."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    yield context
    context.close()


def watched(context: BrowserContext) -> tuple[Tab, list[str]]:
    """Open a tab and collect what its console complains of (a strict CSP tells there)."""
    tab = context.new_page()
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    tab.on("console", note)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    return tab, complaints


def assert_accessible(tab: Tab) -> None:
    """Nothing that axe calls serious or critical; one width; no scrolling sideways on a phone."""
    found = Axe().run(tab)
    serious = [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert not serious
    widths = tab.locator("main > .card").evaluate_all("cards => cards.map(c => c.offsetWidth)")
    assert len(set(widths)) <= 1, tab.url
    size = tab.viewport_size
    tab.set_viewport_size({"width": 360, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360, tab.url
    assert size
    tab.set_viewport_size(size)


def change_settings(tab: Tab) -> None:
    """Pause, resume, rename, delete."""
    tab.get_by_role("link", name="Settings").click()
    tab.get_by_role("button", name="Pause").click()
    expect(tab.locator(".badge").first).to_contain_text("paused")
    tab.get_by_role("link", name="Settings").click()
    tab.get_by_role("button", name="Resume").click()
    expect(tab.locator(".badge").first).to_contain_text("active")
    tab.get_by_role("link", name="Settings").click()
    tab.get_by_label("Display name").fill("Messages")
    tab.get_by_role("button", name="Rename").click()
    expect(tab.get_by_role("heading", name="Messages")).to_be_visible()
    tab.get_by_role("link", name="Delete").click()
    tab.get_by_role("button", name="Delete").click()
    expect(tab.get_by_role("link", name="Add a Customer.io integration")).to_be_visible()


def test_the_story_of_an_integration(
    tmp_path: Path, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sign in, create, copy, deliver, see it arrive, rotate, revoke, pause, resume, delete."""
    with running_page(tmp_path) as (receiver, page):
        tab, complaints = watched(context)
        tab.goto(page.address)
        tab.get_by_label("Password").fill("not the password")
        tab.get_by_role("button", name="Sign in").click()
        expect(tab.get_by_role("alert")).to_contain_text("not the password")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.keyboard.press("Enter")
        tab.get_by_role("link", name="Add a Customer.io integration").click()
        tab.get_by_label("Name", exact=True).press_sequentially("Stitch Customerio")
        expect(tab.locator("#preview")).to_contain_text("stitch_customerio.data")
        tab.get_by_role("button", name="Create").click()
        first = tab.get_by_label("Webhook URL").input_value()
        tab.get_by_role("button", name="Copy").click()
        expect(tab.get_by_text("Copied.")).to_be_visible()
        assert tab.evaluate("navigator.clipboard.readText()") == first
        tab.get_by_role("link", name="Continue").click()
        expect(tab.get_by_role("heading", name="Connect Customer.io")).to_be_visible()
        assert receiver.http.post(first, content=b'{"event_id":"the-first"}').status_code == 200

        root = f"{page.address}/integrations/stitch_customerio"
        tab.goto(root)
        tab.get_by_role("button", name="Send test event").click()
        expect(tab.locator("#test-outcome")).to_contain_text("Taken and safely stored")
        wait_landed(receiver.landing, "stitch_customerio", 2)

        tab.get_by_role("link", name="Events", exact=True).click()
        arrived = tab.get_by_role("row").filter(has_text="the-first")
        expect(arrived).to_contain_text("waiting")
        monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
        assert CliRunner().invoke(cli, ["load"]).exit_code == 0
        tab.reload()
        expect(arrived).to_contain_text("in data")
        arrived.get_by_role("link").click()
        expect(tab.locator("pre")).to_contain_text('"event_id": "the-first"')
        tab.get_by_role("link", name="the-first").click()
        expect(tab.get_by_text("by the command line")).to_be_visible()

        tab.get_by_role("link", name="Webhook URLs").click()
        tab.get_by_role("button", name="Generate").click()
        second = tab.get_by_label("Webhook URL").input_value()
        tab.get_by_role("link", name="Continue").click()
        expect(tab.get_by_text("the most there can be")).to_be_visible()
        tab.get_by_role("link", name="Revoke").first.click()
        tab.get_by_role("button", name="Revoke").click()
        expect(tab.get_by_role("status").first).to_contain_text("revoked")
        wait_until(lambda: receiver.http.post(first, content=b"{}").status_code == 401, "revoked")
        assert receiver.http.post(second, content=b'{"event_id":"e2"}').status_code == 200

        change_settings(tab)
        tab.get_by_role("button", name="Sign out").click()
        expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()
        # A browser reports the refused sign-in as an error of its own.
        assert [line for line in complaints if "401" not in line] == []


def test_the_story_of_a_signing_key(tmp_path: Path, context: BrowserContext) -> None:
    """A wrong key holds what Customer.io signs; the right one, added later, has it loaded."""
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        url = page.create("Stitch Customerio")
        root = f"{page.address}/integrations/stitch_customerio"

        sent = 0

        def one_is_held() -> bool:
            body = b'{"event_id":"e1"}'
            headers = {"x-cio-timestamp": "1", "x-cio-signature": sign("right", 1, body)}
            nonlocal sent
            assert receiver.http.post(url, content=body, headers=headers).status_code == 200
            sent += 1
            rows = landed_rows(receiver.landing, "stitch_customerio")
            return any(row["signature"] == "invalid" for row in rows)

        tab, complaints = watched(context)
        tab.goto(f"{root}/connect")
        tab.get_by_label("Password").fill(PASSWORD)
        tab.keyboard.press("Enter")
        step = tab.get_by_role("listitem").filter(has_text="copy its signing key")
        step.get_by_role("link", name="Signatures").click()
        tab.get_by_label("Add a signing key").fill("not the key")
        tab.get_by_role("button", name="Add").click()
        expect(tab.get_by_text("white space")).to_be_visible()
        tab.get_by_label("Add a signing key").fill("wrong")
        tab.get_by_role("button", name="Add").click()
        expect(tab.get_by_role("status").first).to_contain_text("The key is added")
        wait_until(one_is_held, "the key is known")
        # What lands after the check would be held still.
        wait_landed(receiver.landing, "stitch_customerio", sent)
        tab.reload()
        expect(tab.get_by_text("landed and not loaded")).to_be_visible()
        tab.get_by_label("Add a signing key").fill("right")
        tab.get_by_role("button", name="Add").click()
        tab.get_by_role("button", name="Check again").click()
        expect(tab.get_by_text("loaded next")).to_be_visible()
        expect(tab.get_by_text("Nothing is held any more")).to_be_visible()
        tab.get_by_role("link", name="Remove").first.click()
        tab.get_by_role("button", name="Remove").click()
        expect(tab.get_by_role("heading", name="Removed keys")).to_be_visible()
        tab.get_by_label("Record").check()
        tab.get_by_role("button", name="Save").click()
        expect(tab.get_by_label("Record")).to_be_checked()
        assert_accessible(tab)
        assert [line for line in complaints if "422" not in line] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_every_page(
    tmp_path: Path, context: BrowserContext, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No serious finding of axe, in light and in dark, and all of it fits on a phone."""
    with running_page(tmp_path) as (receiver, page):
        tab, complaints = watched(context)
        tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        tab.goto(page.address)
        assert_accessible(tab)
        tab.get_by_label("Password").fill(PASSWORD)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{page.address}/")
        assert_accessible(tab)
        tab.goto(f"{page.address}/new")
        tab.get_by_label("Name", exact=True).fill("Stitch Customerio " + "and more " * 4)
        tab.get_by_role("button", name="Create").click()
        assert_accessible(tab)
        url = tab.get_by_label("Webhook URL").input_value()
        tab.get_by_role("link", name="Continue").click()
        root = tab.url.removesuffix("/connect")
        assert receiver.http.post(url, content=event("e1", long="x " * 400)).status_code == 200
        assert receiver.http.post(url, content=b'{"broken').status_code == 200
        wait_landed(receiver.landing, root.rpartition("/")[2], 2)
        monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
        assert CliRunner().invoke(cli, ["load"]).exit_code == 0
        tab.goto(f"{root}/events")
        tab.locator("tbody a").first.click()
        assert_accessible(tab)
        for path in (
            "/connect",
            "",
            "/charts",
            "/events",
            "/events?only=held",
            "/trace?event_id=e1",
            "/rejected",
            "/urls",
            "/signatures",
            "/fields",
            "/settings",
            "/delete",
            "/nothing",
            "/../../",
        ):
            tab.goto(root + path)
            assert_accessible(tab)
        tab.goto(f"{page.address}/new")
        tab.get_by_role("button", name="Create").evaluate("button => button.form.noValidate = true")
        tab.get_by_role("button", name="Create").click()
        assert_accessible(tab)
        assert [line for line in complaints if "404" not in line and "422" not in line] == []


def test_nothing_of_a_stranger_is_run(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a delivery holds, and a name: it is text, even without the policy on content."""
    with (
        running_page(tmp_path) as (receiver, page),
        browser.new_context(bypass_csp=True) as context,
    ):
        with closing(registry_of(tmp_path)) as registry:
            _, url = registry.create(_HOSTILE[:100], "strange")
        receiver.post_until(200, url.token, event("e1"))
        strange = dict.fromkeys(LANDED_HEADERS, _HOSTILE)
        names = dict.fromkeys(("object_type", "metric", "event_type", _HOSTILE), _HOSTILE)
        bodies = (
            event(_HOSTILE, **names),
            _HOSTILE.encode(),
            json.dumps([{"event_id": "e2"}, {"event_id": _HOSTILE * 20}, _HOSTILE]).encode(),
        )
        for body in bodies:
            assert receiver.post(url.token, body, **strange).status_code == 200
        monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
        wait_landed(receiver.landing, "strange", 1 + len(bodies))
        assert CliRunner().invoke(cli, ["load"]).exit_code == 0

        tab, complaints = watched(context)
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.address)
        tab.get_by_label("Password").fill(PASSWORD)
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"{page.address}/")
        root = f"{page.address}/integrations/strange"
        tab.goto(f"{root}/events")
        deliveries = [link.get_attribute("href") for link in tab.locator("tbody a").all()]
        assert len(deliveries) == 1 + len(bodies)
        for address in (
            f"{page.address}/",
            *(f"{root}/{tab_name}" for tab_name in ("", "events", "charts", "rejected")),
            *(f"{page.address}{path}" for path in deliveries),
            f"{root}/trace?event_id={quote(_HOSTILE)}",
            *(f"{root}/{tab_name}" for tab_name in ("connect", "urls", "signatures", "delete")),
        ):
            tab.goto(address)
            tab.wait_for_load_state("networkidle")
            expect(tab.locator("body")).to_contain_text(_HOSTILE[:100])
            assert tab.evaluate("window.stolen") is None, address
            assert tab.locator("[src='stolen'], [hx-get*='stolen'], [onerror]").count() == 0
        assert [each for each in asked if each.endswith("stolen")] == []
        assert complaints == []
