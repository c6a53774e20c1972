"""What the management page shows of what arrives: deliveries, fates, figures, use of URLs."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.cli import cli
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.verifying.activity import Activity
from tests.landed_events import WRITER, event, land
from tests.running_page import Page, running_page
from tests.running_receiver import Receiver, wait_landed

SCHEMA = "stitch_customerio"
ROOT = f"/integrations/{SCHEMA}"
MARKUP = "<script>alert(1)</script>"

# The verdict stands behind it.
_FATE = re.compile(r'<td><span class="badge [a-z]*">([^<]+)</span></td>\s*<td><span class="badge')
_DELIVERY = re.compile(rf'href="({ROOT}/deliveries/[0-9a-z]+/\d+)"')
_FIGURE = re.compile(r"<dt>([^<]+)</dt><dd>([\d,]+)")
_LAG = re.compile(r">Lag</dt><dd>([^<]+)<")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Receiver, Page]]:
    """Give an installation whose page is signed in to, with one integration."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    with running_page(tmp_path) as (receiver, page):
        page.sign_in()
        yield receiver, page


def load() -> None:
    """Load as the command line does."""
    result = CliRunner().invoke(cli, ["load"])
    assert result.exit_code == 0, result.output


def fates(page: Page) -> list[str]:
    """Return where the newest deliveries ended, the newest first."""
    return _FATE.findall(page.get(f"{ROOT}/events/newest").text)


def figures(page: Page) -> dict[str, str]:
    """Return the numbers of the overview."""
    return dict(_FIGURE.findall(page.get(f"{ROOT}/figures").text))


def test_every_delivery_is_seen_with_its_body_and_its_fate(
    house: tuple[Receiver, Page],
) -> None:
    """As it waits, once it is loaded, and as an outsider's download."""
    receiver, page = house
    url = page.create("Stitch Customerio")
    assert "Nothing has landed yet" in page.get(f"{ROOT}/events").text
    assert "No event has arrived yet" in page.get(f"{ROOT}/connect").text
    bodies = [
        event("e1", metric="sent"),
        b'{"event_id":"e4"}',
        event("e1", metric=MARKUP, number=1.50),
        b"\xff<b>not JSON",
        b'[{"event_id":"e2"},{"event_id":"e3"},7]',
    ]
    for body in bodies:
        assert receiver.http.post(url, content=body).status_code == 200
    wait_landed(receiver.landing, SCHEMA, len(bodies))
    assert fates(page) == ["waiting"] * 5
    assert figures(page) == {
        "Landed": "5", "Rows": "0", "Waiting": "5", "Held": "0", "Rejected": "0"
    }  # fmt: skip
    assert "Connected" in page.get(f"{ROOT}/arrived").text

    load()
    reason = "rejected: body is not UTF-8: invalid start byte at byte 0"
    assert fates(page) == ["in data", reason, "in data", "in data", "superseded"]
    assert figures(page) == {
        "Landed": "5", "Rows": "4", "Waiting": "0", "Held": "0", "Rejected": "2"
    }  # fmt: skip
    assert "5 in the last hour, at most " in page.get("/").text
    shown = page.get(f"{ROOT}/events/newest").text
    assert "2 events" in shown
    assert MARKUP not in shown
    several, broken, odd, _, _ = _DELIVERY.findall(shown)
    assert 'trace?event_id=e3"' in page.get(several).text
    assert "&lt;b&gt;not JSON" in page.get(broken).text
    assert "&#34;number&#34;: 1.5" in page.get(odd).text
    for path, body in ((several, bodies[4]), (broken, bodies[3]), (odd, bodies[2])):
        answer = page.get(f"{path}/body")
        assert answer.content == body
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"].startswith("attachment")
    charts = page.get(f"{ROOT}/charts").text
    assert "sent" not in charts.partition("<table>")[2].partition("</table>")[0]
    assert MARKUP not in charts
    assert "none 3" in charts


def test_the_lag_is_that_of_the_oldest_delivery_that_waits(house: tuple[Receiver, Page]) -> None:
    """On the dashboard and the overview; nothing waits, no lag."""
    receiver, page = house
    page.create("Stitch Customerio")
    file = land(receiver.landing, SCHEMA, [event("e1")])
    then = (datetime.now(UTC) - timedelta(minutes=5, seconds=10)).timestamp()
    os.utime(file.path(receiver.landing), (then, then))
    land(receiver.landing, SCHEMA, [event("e2")], first=1)
    for path in ("/cards", f"{ROOT}/figures"):
        assert _LAG.findall(page.get(path).text) == ["5 min"]
    load()
    for path in ("/cards", f"{ROOT}/figures"):
        assert _LAG.findall(page.get(path).text) == ["0 s"]


def test_only_a_call_of_its_urls_says_that_customerio_is_connected(
    house: tuple[Receiver, Page],
) -> None:
    """Neither the page's own test event nor an import; a call of theirs does."""
    receiver, page = house
    page.create("Stitch Customerio")
    assert "Taken and safely stored" in page.post(f"{ROOT}/test-event", ROOT).text
    wait_landed(receiver.landing, SCHEMA, 1)
    land(receiver.landing, SCHEMA, [event("e1")], url_id="import")
    load()
    for path in ("connect", "arrived"):
        assert "No event has arrived yet" in page.get(f"{ROOT}/{path}").text
    with closing(Registry.open(f"sqlite:///{receiver.landing.parent}/registry.sqlite")) as registry:
        [url] = registry.urls(registry.of_schema(SCHEMA))
    land(receiver.landing, SCHEMA, [event("e2")], first=1, url_id=url.id)
    for path in ("connect", "arrived"):
        assert "✓ Connected" in page.get(f"{ROOT}/{path}").text


def test_an_event_is_found_by_its_id(house: tuple[Receiver, Page]) -> None:
    """Every delivery of it, and its row; what nobody has is said so."""
    receiver, page = house
    page.create("Stitch Customerio")
    land(receiver.landing, SCHEMA, [event("a/b?c=<d>&"), event("a/b?c=<d>&", metric="clicked")])
    load()
    found = page.http.get(f"{ROOT}/trace", params={"event_id": "a/b?c=<d>&"}).text
    assert _FATE.findall(found) == ["superseded", "in data"]
    assert "<dt>metric</dt><dd>clicked</dd>" in found
    assert re.search(r"<dt>_sdc_received_at</dt><dd>\d{4}-\d\d-\d\dT[\d:.+]+</dd>", found)
    assert "by the command line" in found
    assert "No delivery has this event_id" in page.get(f"{ROOT}/trace?event_id=nobody").text
    for bad in ("", "%00", "x" * 1025):
        answer = page.get(f"{ROOT}/trace?event_id={bad}")
        assert (answer.status_code, "Give an event_id" in answer.text) == (200, True)


def test_rejected_records_with_their_reasons(house: tuple[Receiver, Page]) -> None:
    """Counted by reason, the newest first, each with the way to its body."""
    receiver, page = house
    page.create("Stitch Customerio")
    assert "Nothing was rejected" in page.get(f"{ROOT}/rejected").text
    land(receiver.landing, SCHEMA, [b"", b"<b>1</b>" + b"x" * 1000, b"", event("e1")])
    load()
    shown = page.get(f"{ROOT}/rejected").text
    assert 'body is empty</span> <span class="fact">2 records' in shown
    assert "<b>1" not in shown
    assert "x" * 301 not in shown
    assert _DELIVERY.findall(shown) == [
        f"{ROOT}/deliveries/{WRITER}/{offset}" for offset in (2, 1, 0)
    ]


def test_rejected_records_are_tried_again(house: tuple[Receiver, Page]) -> None:
    """By the button, as by the command; what cannot be done is said."""
    receiver, page = house
    page.create("Stitch Customerio")
    land(receiver.landing, SCHEMA, [b"", event("e1")])
    load()
    warehouse = receiver.landing.parent / "warehouse" / "customerio.duckdb"
    with duckdb.connect(warehouse) as connection:
        # As if a release had refused what this one does not.
        connection.execute("DELETE FROM stitch_customerio.data")
        connection.execute('UPDATE stitch_customerio._sdc_rejected SET "offset" = 1')
    answer = page.post(f"{ROOT}/replay-rejected", f"{ROOT}/rejected")
    assert answer.status_code == 200
    assert "1 delivery was tried again: 0 records are rejected still." in answer.text
    with duckdb.connect(warehouse, read_only=True) as connection:
        rows = connection.execute("SELECT event_id FROM stitch_customerio.data").fetchall()
    assert rows == [("e1",)]
    page.post(f"{ROOT}/pause", f"{ROOT}/settings")
    answer = page.post(f"{ROOT}/replay-rejected", ROOT)
    assert (answer.status_code, "paused" in answer.text) == (409, True)


def test_a_url_says_when_it_is_safe_to_revoke(house: tuple[Receiver, Page]) -> None:
    """Once the newer one is in use and it has been quiet for an hour, and not before."""
    receiver, page = house
    page.create("Stitch Customerio")
    page.post(f"{ROOT}/urls", f"{ROOT}/urls")
    older, newer = re.findall(r"<code>(url_[0-9a-f]+)</code>", page.get(f"{ROOT}/urls").text)
    first = 0

    def come(url_id: str, count: int, ago: timedelta) -> str:
        nonlocal first
        bodies = [event(f"e{first + at}") for at in range(count)]
        land(receiver.landing, SCHEMA, bodies, first=first, url_id=url_id, ago=ago)
        first += count
        return page.get(f"{ROOT}/urls").text

    assert page.get(f"{ROOT}/urls").text.count("never used") == 2
    shown = come(older, 3, timedelta(minutes=90))
    assert re.search(r"last used <time [^>]+>90 min ago</time>, 3 calls in 24 h", shown)
    assert "safe to revoke</span>" not in shown
    shown = come(newer, 1, timedelta(minutes=2))
    assert "1 call in 24 h" in shown
    assert shown.count("safe to revoke</span>") == 1
    assert shown.index("safe to revoke</span>") < shown.index(newer)
    by_command = CliRunner().invoke(cli, ["urls", "list", "stitch_customerio", "--json"])
    assert [
        (each["url_id"], each["calls_24h"], each["safe_to_revoke"], bool(each["last_used_at"]))
        for each in json.loads(by_command.output)
    ] == [(older, 3, True, True), (newer, 1, False, True)]
    table = CliRunner().invoke(cli, ["urls", "list", "stitch_customerio"]).output
    assert re.search(rf"{older}.*\b3 .*yes", table)
    assert "safe to revoke</span>" not in come(older, 1, timedelta(minutes=30))


def test_the_last_use_is_found_however_long_ago_it_was(tmp_path: Path) -> None:
    """In older folders, back to when the URL was made; once counted, never again."""
    now = datetime.now(UTC)
    days = timedelta(days=1)
    for at, (url_id, ago) in enumerate([("old", 9 * days), ("old", 3 * days), ("new", 2 * days)]):
        land(tmp_path, SCHEMA, [event("e1")], first=at, url_id=url_id, ago=ago)
    activity = Activity(tmp_path, SCHEMA)
    made_at = {"old": now - 20 * days, "new": now - 3 * days, "unused": now - 20 * days}
    uses = activity.use_of_urls(now, made_at)
    assert {name: use.calls for name, use in uses.items()} == dict.fromkeys(made_at, 0)
    used = {
        name: use.last_used and round((now - use.last_used) / days) for name, use in uses.items()
    }
    assert used == {"old": 3, "new": 2, "unused": None}


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_each_delivery_counts_once(data: st.DataObject) -> None:
    """However files come between two looks, and are joined meanwhile, of several writers."""
    now = datetime.now(UTC)
    with TemporaryDirectory() as folder:
        landing = Path(folder)
        activity = Activity(landing, SCHEMA)
        ends = {"aaaaaaaaaa": 0, "bbbbbbbbbb": 0}
        files: dict[str, list[LandingFile]] = {writer: [] for writer in ends}
        for _ in range(data.draw(st.integers(1, 5))):
            writer = data.draw(st.sampled_from(sorted(ends)))
            count = data.draw(st.integers(1, 3))
            if files[writer] and data.draw(st.booleans()):
                # One file with the deliveries of the last one, too.
                gone = files[writer].pop()
                gone.path(landing).unlink()
                first = gone.first
            else:
                first = ends[writer]
            ends[writer] += count
            bodies = [b"{}"] * (ends[writer] - first)
            files[writer].append(
                land(landing, SCHEMA, bodies, first=first, writer=writer, ago=timedelta(minutes=5))
            )
            if data.draw(st.booleans()):
                activity.per_minute(now, 60)
        expected = sum(ends.values())
        assert sum(activity.per_minute(now, 60)) == expected
        later = now + timedelta(hours=25)
        assert sum(activity.per_minute(later, 60)) == 0
        [use] = activity.use_of_urls(now, {"url_1": now}).values()
        assert use.calls == 0


@pytest.mark.parametrize("tab", ["", "/events", "/rejected", "/urls", "/connect", "/charts"])
def test_trouble_with_one_thing_leaves_the_page(tab: str, house: tuple[Receiver, Page]) -> None:
    """A landing file or a warehouse that cannot be read is named, and the page is there."""
    receiver, page = house
    page.create("Stitch Customerio")
    file = land(receiver.landing, SCHEMA, [event("e1")])
    file.path(receiver.landing).chmod(0o640)
    file.path(receiver.landing).write_bytes(b"no Parquet")
    warehouse = receiver.landing.parent / "warehouse" / "customerio.duckdb"
    warehouse.parent.mkdir(exist_ok=True)
    warehouse.write_bytes(b"no DuckDB" * 1000)
    answer = page.get(ROOT + tab)
    assert answer.status_code == 200
    assert "Traceback" not in answer.text
    if tab in ("/events", "/connect"):
        assert "The landing files cannot be read" in answer.text
    else:
        assert re.search(r"The (landing files|warehouse)[^<]+", answer.text)


def test_deliveries_are_seen_while_the_warehouse_is_dead(house: tuple[Receiver, Page]) -> None:
    """Their fate is not known then."""
    receiver, page = house
    page.create("Stitch Customerio")
    land(receiver.landing, SCHEMA, [event("e1")])
    warehouse = receiver.landing.parent / "warehouse" / "customerio.duckdb"
    warehouse.parent.mkdir(exist_ok=True)
    warehouse.write_bytes(b"no DuckDB" * 1000)
    shown = page.get(f"{ROOT}/events").text
    assert _FATE.findall(shown) == ["unknown"]
    [path] = _DELIVERY.findall(shown)
    assert page.get(f"{path}/body").content == event("e1")


@pytest.mark.parametrize(
    "path",
    [
        f"{ROOT}/deliveries/{WRITER}/1",
        f"{ROOT}/deliveries/{WRITER}/99999999999999999999999",
        f"{ROOT}/deliveries/{WRITER}/-1",
        f"{ROOT}/deliveries/..%2f..%2fx/0",
        f"{ROOT}/deliveries/{WRITER}/0/nothing",
        "/integrations/nothing/events",
    ],
)
def test_what_is_not_there_is_404(path: str, signed_in: Page) -> None:
    """Whatever stands in the address."""
    assert signed_in.get(path).status_code == 404


@pytest.fixture(scope="module")
def signed_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Give a page with one integration, to which one event came."""
    home = tmp_path_factory.mktemp("page")
    with running_page(home) as (receiver, page):
        page.sign_in()
        page.create("Stitch Customerio")
        land(receiver.landing, SCHEMA, [event("e1")])
        yield page


@pytest.mark.parametrize("path", ["", "/events", "/rejected", "/charts", "/figures", "/trace"])
def test_strangers_see_nothing(path: str, signed_in: Page) -> None:
    """Nothing of it without a session."""
    answer = signed_in.stranger().get(ROOT + path)
    assert (answer.status_code, answer.headers["location"][:8]) == (303, "/sign-in")
