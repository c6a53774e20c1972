"""``customerio-pipeline integrations connect`` against a stand-in for Customer.io's App API."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.connecting import app_api
from customerio_pipeline.connecting.events import ALL_EVENTS
from customerio_pipeline.errors import PipelineError
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import webhook_url
from tests.customerio_app_api import KEY, Answer, AppApiStandIn, running_app_api

PUBLIC = "https://hooks.example.com"


@pytest.fixture
def customerio(monkeypatch: pytest.MonkeyPatch) -> Iterator[AppApiStandIn]:
    """Give a workspace without webhooks."""
    with running_app_api() as stand_in:
        monkeypatch.setenv("CUSTOMERIO_APP_API_URL", stand_in.address)
        yield stand_in


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Give the registry of an installation with the integration Shop, and one live URL."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", PUBLIC)
    with closing(Registry.open(f"sqlite:///{tmp_path / 'registry.sqlite'}")) as registry:
        registry.create("Shop")
        yield registry


def run(*options: str, stdin: str = f"{KEY}\n") -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["integrations", "connect", "shop", *options], input=stdin)


def connected(*options: str, stdin: str = f"{KEY}\n") -> dict[str, object]:
    """Run it and return what it says."""
    result = run(*options, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output or result.exception
    assert KEY not in result.output
    assert "/v1/webhooks/" not in result.output
    said: dict[str, object] = json.loads(result.output)
    return said


def refused(*options: str, stdin: str = f"{KEY}\n", usage: bool = True) -> str:
    """Run it, in vain, and return its sentence."""
    error = run(*options, stdin=stdin).exception
    assert isinstance(error, PipelineError), error
    assert error.usage == usage
    assert KEY not in str(error)
    assert "/v1/webhooks/" not in str(error)
    return str(error)


def live(registry: Registry) -> list[str]:
    """Return the ids of the live URLs, oldest first."""
    return [url.id for url in registry.urls(registry.find("shop")) if url.is_live]


def test_a_webhook_is_made_disabled_and_enabled_with_a_key(
    customerio: AppApiStandIn, registry: Registry
) -> None:
    """Its URL is a live one of ours; run again, it is found and left as it is."""
    made = connected()
    [webhook] = customerio.webhooks
    assert (made["done"], made["webhook_id"], made["enabled"]) == ("created", "1", False)
    assert (webhook["name"], webhook["disabled"]) == ("Shop", True)
    assert tuple(webhook["events"]) == ALL_EVENTS
    assert webhook["endpoint"].startswith(f"{PUBLIC}/v1/webhooks/")
    known = registry.url_of_token(webhook["endpoint"].rpartition("/")[2])
    assert known
    assert known[1].id == made["url_id"] == live(registry)[1]

    assert "has no signing key yet" in refused("--enable")
    assert connected()["done"] == "unchanged"
    registry.keys.add(registry.find("shop"), "the-signing-key")
    assert "Enable it" in run().output
    assert (connected("--enable")["done"], webhook["disabled"]) == ("updated", False)
    assert (connected()["done"], connected("--enable")["enabled"]) == ("unchanged", True)
    assert customerio.asked.count("PUT") == 1
    assert len(live(registry)) == 2


def test_what_a_person_set_there_stays(
    customerio: AppApiStandIn, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name, the events, the rest; but the URL follows our public address."""
    connected("--event", "email_opened", "--event", "sms_replied")
    [webhook] = customerio.webhooks
    assert webhook["events"] == ["email_opened", "sms_replied"]
    webhook |= {"name": "Renamed", "full_resolution": True, "with_content": True}
    assert connected("--event", "sms_replied", "--event", "email_opened")["done"] == "unchanged"
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", "https://elsewhere.example.com")
    token = webhook["endpoint"].rpartition("/")[2]
    assert connected("--event", "email_sent")["done"] == "updated"
    assert webhook["endpoint"] == f"https://elsewhere.example.com/v1/webhooks/{token}"
    assert webhook["events"] == ["email_sent"]
    assert (webhook["name"], webhook["full_resolution"], webhook["with_content"]) == (
        "Renamed",
        True,
        True,
    )


def test_a_url_is_replaced_once_it_is_revoked(
    customerio: AppApiStandIn, registry: Registry
) -> None:
    """The same webhook gets a new one."""
    old = str(connected()["url_id"])
    registry.revoke_url(registry.find("shop"), old)
    again = connected()
    assert (again["done"], again["webhook_id"], len(customerio.webhooks)) == ("updated", "1", 1)
    assert again["url_id"] in live(registry)


def test_with_two_live_urls_one_must_be_given(
    customerio: AppApiStandIn, registry: Registry
) -> None:
    """As nobody knows their tokens; in the line after the key."""
    shop = registry.find("shop")
    url = webhook_url(PUBLIC, registry.generate_url(shop).token)
    sentence = refused()
    assert "has two live URLs" in sentence
    assert all(url_id in sentence for url_id in live(registry))
    for wrong in ("", "nonsense", f"{url}x", webhook_url(PUBLIC, "x" * 43), "http://[/v1"):
        assert "no live URL" in refused("--url-from-stdin", stdin=f"{KEY}\n{wrong}\n")
    assert customerio.webhooks == []
    assert connected("--url-from-stdin", stdin=f"{KEY}\n{url}\n")["done"] == "created"
    assert customerio.webhooks[0]["endpoint"] == url
    assert connected()["done"] == "unchanged"
    other, _ = registry.create("Other")
    strange = webhook_url(PUBLIC, registry.generate_url(other).token)
    assert "no live URL" in refused("--url-from-stdin", stdin=f"{KEY}\n{strange}\n")


def test_webhooks_of_others_are_left_alone(customerio: AppApiStandIn, registry: Registry) -> None:
    """One of the same name that calls something else, or another integration; several of ours."""
    stitch = customerio.add("Shop", "https://stitch.example.com/v1/webhooks/" + "x" * 43)
    assert "calls something else" in refused()
    other, new = registry.create("Other")
    stitch["endpoint"] = webhook_url(PUBLIC, new.token)
    assert "calls something else" in refused()
    assert customerio.asked == ["GET", "GET"]
    assert len(live(registry)) == 1
    assert connected("--webhook-name", "Shop events")["done"] == "created"
    assert customerio.webhooks[1]["name"] == "Shop events"
    customerio.add("Twice", customerio.webhooks[1]["endpoint"])
    assert "(ids 2, 3)" in refused()
    customerio.add("Script", customerio.webhooks[1]["endpoint"], type="js")
    assert "(ids 2, 3)" in refused()
    assert registry.find("other") == other


def test_a_webhook_of_a_lost_registry_is_taken_over(
    customerio: AppApiStandIn, registry: Registry
) -> None:
    """It calls our address with a token that nobody knows."""
    webhook = customerio.add("Shop", webhook_url(PUBLIC, "x" * 43))
    assert connected()["done"] == "updated"
    assert registry.url_of_token(webhook["endpoint"].rpartition("/")[2])


ECHO = {"errors": [{"detail": f"key {KEY}\x07 refused"}]}


@pytest.mark.parametrize(
    ("method", "answer", "is_usage_and_sentence"),
    [
        ("GET", Answer(401, ECHO), (True, "does not take this App API key")),
        ("GET", Answer(403, ECHO), (True, "(--region)")),
        ("GET", Answer(404, b"not found"), (True, "CUSTOMERIO_APP_API_URL is wrong")),
        ("GET", Answer(302, b"", {"location": "/"}), (True, "answered HTTP 302")),
        ("GET", Answer(429, {}, {"retry-after": "7"}), (False, "try again in 7 s")),
        ("GET", Answer(429, {}), (False, "try again in a minute")),
        ("GET", Answer(503, b"<html>"), (False, "has trouble of its own (HTTP 503)")),
        ("GET", Answer(200, b"<html>"), (False, "is no JSON")),
        ("GET", Answer(200, {"newsletters": []}), (False, "no list of reporting webhooks")),
        ("GET", Answer(200, [1]), (False, "no list of reporting webhooks")),
        ("GET", Answer(0, silent=True), (False, "broke the connection")),
        ("POST", Answer(422, ECHO), (True, "does not take the webhook (key …  refused); where")),
        ("POST", Answer(400, {"meta": {"error": "no such event"}}), (True, "(no such event)")),
        ("POST", Answer(400, b"?"), (True, "does not take the webhook; where")),
        ("POST", Answer(429, {}), (False, "try again in a minute")),
        ("POST", Answer(401, {}), (True, "does not take this App API key")),
    ],
)
def test_what_goes_wrong_there_is_one_sentence(
    customerio: AppApiStandIn,
    registry: Registry,
    method: str,
    answer: Answer,
    is_usage_and_sentence: tuple[bool, str],
) -> None:
    """Nothing is left over; the next run succeeds."""
    usage, sentence = is_usage_and_sentence
    customerio.answer(method, answer)
    assert sentence in refused(usage=usage)
    assert len(live(registry)) == 1
    assert connected()["done"] == "created"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(502, b"", is_done=True),
        Answer(0, is_done=True, silent=True),
        Answer(200, {}, is_done=True),
        Answer(200, b"<html>", is_done=True),
    ],
)
def test_a_webhook_that_may_have_been_made_keeps_its_url(
    customerio: AppApiStandIn, registry: Registry, answer: Answer
) -> None:
    """Customer.io would meet 401; run again, it is found."""
    customerio.answer("POST", answer)
    assert "its URL url_" in refused(usage=False)
    assert len(live(registry)) == 2
    assert connected()["done"] == "unchanged"
    assert len(customerio.webhooks) == 1


def test_no_answer_in_time(customerio: AppApiStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor anybody there at all."""
    monkeypatch.setattr(app_api, "TIMEOUT_SECONDS", 0.1)
    customerio.hold.clear()
    assert "did not answer within 0.1 s" in refused(usage=False)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("CUSTOMERIO_APP_API_URL", f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port} cannot be reached" in refused(usage=False)


@pytest.mark.parametrize("key", ["", " ", "two words", "é", "x" * 513])
def test_what_cannot_be_a_key_is_sent_nowhere(customerio: AppApiStandIn, key: str) -> None:
    """Told before anything is asked."""
    assert "standard input" in refused(stdin=f"{key}\n")
    assert customerio.asked == []


def test_what_customerio_could_not_call_is_not_told_to_it(
    customerio: AppApiStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public address must be one."""
    monkeypatch.setenv("CUSTOMERIO_PUBLIC_URL", "http://127.0.0.1:8080")
    assert "set CUSTOMERIO_PUBLIC_URL" in refused()
    assert customerio.asked == []


@pytest.mark.parametrize("url", ["http://api.example.com", "api.example.com", "https://a:b@c.d"])
def test_the_key_travels_encrypted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another address of the App API is taken with https only."""
    monkeypatch.setenv("CUSTOMERIO_APP_API_URL", url)
    assert "CUSTOMERIO_APP_API_URL is wrong" in refused()
