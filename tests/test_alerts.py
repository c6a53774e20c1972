"""Alerts: people are told once when something is wrong, and when it is over."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import NoAlertsError
from customerio_pipeline.registry.registry import Registry
from tests.dagster_shop import Shop, opened_shop
from tests.landed_events import event
from tests.listening import Listener, listening, mail_server

GAP = "the check landed_offsets_gapless of shop/data fails"


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Yield a Slack that is set up."""
    with listening() as listener:
        monkeypatch.setenv("CUSTOMERIO_ALERT_SLACK_URL", listener.url)
        yield listener


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Yield a webhook that is set up."""
    with listening() as listener:
        monkeypatch.setenv("CUSTOMERIO_ALERT_WEBHOOK_URL", listener.url)
        yield listener


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield an installation that tells at once."""
    monkeypatch.setenv("CUSTOMERIO_ALERT_AFTER_SECONDS", "0")
    warehouse = f"duckdb:///{tmp_path / 'warehouse' / 'w.duckdb'}"
    with opened_shop(tmp_path, monkeypatch, warehouse) as shop:
        yield shop


class Watcher:
    """The sensor, as Dagster's daemon evaluates it."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._cursor: str | None = None

    def tick(self) -> str:
        """Evaluate it; return what the tick says in the UI."""
        repository = defs().get_repository_def()
        context = dg.build_sensor_context(
            instance=self._shop.instance, cursor=self._cursor, repository_def=repository
        )
        result = repository.get_sensor_def("alerts_sensor")(context)
        assert isinstance(result, dg.SensorResult)
        self._cursor = result.cursor
        assert isinstance(result.skip_reason, dg.SkipReason)
        return str(result.skip_reason.skip_message)

    def wait(self) -> None:
        """Let the time pass until what failed is tried again."""
        assert self._cursor is not None
        self._cursor = re.sub(r'"until":[0-9.]+', '"until":0', self._cursor)


def break_landing(shop: Shop) -> Path:
    """Load, with a file between two others moved away; return where it is."""
    shop.land(event("a"))
    lost = shop.land(event("b"), first=1)
    shop.land(event("c"), first=2)
    away = lost.rename(shop.settings.home / lost.name)
    shop.run()
    return away.rename(lost.with_suffix(".away"))


def test_a_failed_check_is_told_once_and_its_end_once(
    shop: Shop, slack: Listener, webhook: Listener
) -> None:
    """By both webhooks, with the sentence and a link."""
    watcher = Watcher(shop)
    watcher.tick()
    away = break_landing(shop)
    for _ in range(3):
        watcher.tick()
    [told] = webhook.bodies
    [trouble] = told["begun"]
    assert (trouble["id"], trouble["title"], told["over"]) == (
        "check:shop/data/landed_offsets_gapless",
        GAP,
        [],
    )
    assert "offsets 1 to 1 are missing" in trouble["text"]
    assert trouble["link"] == "http://127.0.0.1:3000/assets/shop/data?view=checks"
    assert GAP in slack.bodies[0]["text"]
    away.rename(away.with_suffix(".parquet"))
    shop.run()
    for _ in range(3):
        watcher.tick()
    assert [each["title"] for each in webhook.bodies[1]["over"]] == [GAP]
    assert f"Over: {GAP}" in slack.bodies[1]["text"]
    assert (len(webhook.requests), len(slack.requests)) == (2, 2)


def test_a_failed_load_is_told_with_its_sentence(shop: Shop, webhook: Listener) -> None:
    """And once a later one succeeds it is over."""
    watcher = Watcher(shop)
    shop.land(event("a"))
    with closing(Registry.open(shop.settings.registry)) as registry:
        registry.pause(shop.integration)
        shop.run()
        watcher.tick()
        registry.resume(shop.integration)
    [trouble] = webhook.bodies[0]["begun"]
    assert trouble["title"] == "shop_load failed"
    assert "paused" in trouble["text"]
    assert "/runs/" in trouble["link"]
    shop.run()
    watcher.tick()
    assert [each["id"] for each in webhook.bodies[1]["over"]] == ["run:shop_load"]


def test_trouble_that_does_not_last_is_told_to_nobody(
    shop: Shop, webhook: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute, as it is set up by default."""
    monkeypatch.setenv("CUSTOMERIO_ALERT_AFTER_SECONDS", "60")
    watcher = Watcher(shop)
    away = break_landing(shop)
    assert watcher.tick() == "1 troubles now."
    away.rename(away.with_suffix(".parquet"))
    shop.run()
    assert watcher.tick() == "0 troubles now."
    assert webhook.requests == []


def test_a_way_that_is_broken_keeps_no_other_back(
    shop: Shop, slack: Listener, webhook: Listener
) -> None:
    """It is told later, when it works again; the other one not twice."""
    slack.status = 500
    watcher = Watcher(shop)
    break_landing(shop)
    said = watcher.tick()
    assert said == "127.0.0.1 answered 500 (CUSTOMERIO_ALERT_SLACK_URL)."
    assert slack.url not in said
    slack.status = 200
    assert watcher.tick() == "1 troubles now."
    # Half a minute later.
    watcher.wait()
    watcher.tick()
    assert (len(slack.requests), len(webhook.requests)) == (1, 1)


def test_nothing_is_told_where_nothing_is_set_up(shop: Shop) -> None:
    """The tick says so."""
    assert Watcher(shop).tick() == "No alerts are set up."


def alerts_test(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Result:
    """Run the command."""
    for name, value in settings.items():
        monkeypatch.setenv(f"CUSTOMERIO_{name}", value)
    return CliRunner().invoke(cli, ["alerts", "test"])


def test_the_test_says_what_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slack: Listener, webhook: Listener
) -> None:
    """By each way; exit code 1 when one does not work, with the reason and no secret."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    with mail_server() as mail:
        url = f"smtp://127.0.0.1:{mail.port}"
        found = alerts_test(monkeypatch, SMTP_URL=url, ALERT_EMAIL_TO="ops@example.com, b@c.de")
        assert (found.exit_code, found.stdout.splitlines()) == (
            0,
            ["e-mail: delivered", "Slack webhook: delivered", "webhook: delivered"],
        )
        [(recipients, message, _)] = mail.mails
    assert recipients == ["ops@example.com", "b@c.de"]
    assert message["Subject"] == "customerio-pipeline: a test of alerts"
    assert message["From"] == "ops@example.com"
    slack.status = 404
    found = alerts_test(monkeypatch)
    assert (found.exit_code, found.stdout) == (1, "webhook: delivered\n")
    assert "127.0.0.1 answered 404 (CUSTOMERIO_ALERT_SLACK_URL)." in found.stderr
    assert "127.0.0.1 cannot be reached: Connection refused." in found.stderr
    assert "hook-3f9a" not in found.output


def test_mail_is_encrypted_and_its_password_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With STARTTLS and a certificate that is known."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=mail"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    monkeypatch.setenv("CUSTOMERIO_ALERT_EMAIL_TO", "ops@example.com")
    with mail_server(tls, ("ada", "pass/word")) as mail:
        url = f"smtp://ada:{{}}@127.0.0.1:{mail.port}"
        unknown = alerts_test(monkeypatch, SMTP_URL=url.format("pass%2Fword"))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        wrong = alerts_test(monkeypatch, SMTP_URL=url.format("wrong-7d"))
        right = alerts_test(monkeypatch, SMTP_URL=url.format("pass%2Fword"))
        [(_, _, is_encrypted)] = mail.mails
    assert is_encrypted
    assert "certificate verify failed" in unknown.stderr
    assert "refused user and password of CUSTOMERIO_SMTP_URL" in wrong.stderr
    assert "wrong-7d" not in wrong.output
    assert right.stdout == "e-mail: delivered\n"


def test_a_test_of_nothing_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the settings."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    found = alerts_test(monkeypatch)
    assert isinstance(found.exception, NoAlertsError)
    assert found.exception.usage
    assert "CUSTOMERIO_ALERT_SLACK_URL" in str(found.exception)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ALERT_SLACK_URL": "http://slack.example.com/x"}, "must start with https://"),
        ({"SMTP_URL": "mail.example.com", "ALERT_EMAIL_TO": "a@b.c"}, "must be smtp://"),
        ({"SMTP_URL": "smtp://mail.example.com"}, "must be set together"),
        ({"SMTP_URL": "smtp://m.example.com", "ALERT_EMAIL_TO": "ops"}, "ops@example.com"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    """When anything starts, not when something is wrong."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    assert said in str(alerts_test(monkeypatch, **settings).exception)
