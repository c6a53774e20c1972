"""What is held, as the page shows it: counted, listed, released."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from tests.landed_events import WRITER, event, land
from tests.running_page import Page, running_page
from tests.running_receiver import Receiver

SCHEMA = "stitch_customerio"
ROOT = f"/integrations/{SCHEMA}"

_EVENT = re.compile(r'<td class="any id"><code>([^<]+)<')
_WARNING = re.compile(rf'<li><a id="[^"]+" href="{ROOT}([a-z/]*)">([^<]+)</a></li>')


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, Page]]:
    """Give an installation whose page is signed in to, with an integration that has a key."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        page.post(f"{ROOT}/keys", f"{ROOT}/signatures", key="the-signing-key")
        yield receiver, page


def listed(page: Page, path: str) -> list[str]:
    """Return the ids of the deliveries that are listed there."""
    return _EVENT.findall(page.get(f"{ROOT}/{path}").text)


def test_what_is_held_is_listed(house: tuple[Receiver, Page]) -> None:
    """By the link beside the count, however much came since, before a load and after it."""
    receiver, page = house
    assert "Nothing is held" in page.get(f"{ROOT}/events?only=held").text
    verdicts = ("invalid", "stale", "valid:key_1", "invalid:loaded", "unchecked", "invalid")
    for at, verdict in enumerate(verdicts):
        land(receiver.landing, SCHEMA, [event(f"e{at}")], first=at, signature=verdict)
    bodies = [event(f"later{at}") for at in range(60)]
    land(receiver.landing, SCHEMA, bodies, first=6, signature="valid:key_1")
    release(receiver.landing, SCHEMA, {WRITER: OffsetSet([(5, 5)])})

    shown = page.get(f"{ROOT}/signatures").text
    assert "2 deliveries are landed and not loaded" in shown
    assert "1: no signing key signed it." in shown
    assert "1: a key signed it, too long before or after the receipt." in shown
    assert f'<a href="{ROOT}/events?only=held">' in shown
    for _ in range(2):
        assert listed(page, "events?only=held") == ["e1", "e0"]
        assert listed(page, "events/newest?only=held") == ["e1", "e0"]
        assert "e0" not in listed(page, "events")
        assert len(listed(page, "events?only=nothing")) == 50
        assert CliRunner().invoke(cli, ["load"]).exit_code == 0
    shown = page.get(f"{ROOT}/events?only=held").text
    assert shown.count('class="badge held">held<') == 2
    # As does the part that a browser with scripts asks for again and again.
    assert f'hx-get="{ROOT}/events/newest?only=held"' in shown

    page.post(f"{ROOT}/signature-mode", f"{ROOT}/signatures", mode="record")
    page.post(f"{ROOT}/reverify", f"{ROOT}/signatures")
    assert "Nothing is held" in page.get(f"{ROOT}/events?only=held").text


def test_the_newest_fifty_of_what_is_held_are_listed(house: tuple[Receiver, Page]) -> None:
    """The newest first, of all that a stranger sent."""
    receiver, page = house
    bodies = [event(f"e{at}") for at in range(120)]
    land(receiver.landing, SCHEMA, bodies, signature="invalid")
    release(receiver.landing, SCHEMA, {WRITER: OffsetSet([(100, 119)])})
    assert listed(page, "events?only=held") == [f"e{at}" for at in range(99, 49, -1)]
    assert "These are the newest 50" in page.get(f"{ROOT}/events?only=held").text


def test_warnings_lead_to_where_they_are_dealt_with(house: tuple[Receiver, Page]) -> None:
    """Each warning of the dashboard is a link to a page of the integration."""
    receiver, page = house
    assert _WARNING.findall(page.get("/cards").text) == []
    land(receiver.landing, SCHEMA, [event("e1")], signature="invalid")
    assert CliRunner().invoke(cli, ["load"]).exit_code == 0
    page.post(f"{ROOT}/pause", f"{ROOT}/settings")
    [url] = re.findall(r"<code>(url_[0-9a-f]+)</code>", page.get(f"{ROOT}/urls").text)
    page.post(f"{ROOT}/urls/{url}/revoke", f"{ROOT}/urls")
    warnings = dict(_WARNING.findall(page.get("/cards").text))
    assert warnings == {
        "/urls": "No live URL: no delivery can arrive.",
        "/settings": "Paused: events are received and kept, not loaded.",
        "/signatures": "1 delivery is held because of its signature.",
    }
    for path, what in (("/urls", "Generate"), ("/settings", "Resume"), ("/signatures", "Check")):
        assert f">{what}" in page.get(ROOT + path).text
    damaged = land(receiver.landing, SCHEMA, [event("e2")], first=1).path(receiver.landing)
    damaged.chmod(0o640)
    damaged.write_bytes(b"no Parquet")
    [(path, text), *_] = _WARNING.findall(page.get("/cards").text)
    assert (path, text.startswith("The landing files cannot be read")) == ("", True)
