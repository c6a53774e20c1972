"""The ways by which people are told: e-mail, a Slack-compatible webhook, a webhook of JSON."""

import json
import smtplib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import httpx

from customerio_pipeline.alerting.message import Message, Trouble
from customerio_pipeline.errors import AlertError
from customerio_pipeline.settings import Settings

_TIMEOUT_SECONDS = 10.0
_SMTP_PORTS = {"smtp": 587, "smtps": 465}
_HERE = ("127.0.0.1", "::1", "localhost")
# Slack cuts longer messages into several.
_SLACK_CHARACTERS = 3_500


class Way(Protocol):
    """A way to tell people."""

    name: str

    def send(self, message: Message) -> None:
        """Tell them.

        Raises:
            AlertError: the message was not taken, in a sentence without secrets.
        """


class Email:
    """Mail by an SMTP server."""

    name = "e-mail"

    def __init__(self, url: str, sender: str, recipients: tuple[str, ...]) -> None:
        """Take ``smtp://user:password@host:port`` or ``smtps://…``, and who writes to whom."""
        self._url = urlsplit(url)
        self._sender = sender
        self._recipients = recipients

    def send(self, message: Message) -> None:
        """Send one mail to all recipients, encrypted where the server can."""
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._recipients)
        mail["Date"] = formatdate()
        mail["Message-ID"] = make_msgid(domain="customerio-pipeline")
        mail.set_content(message.body)
        host = self._url.hostname or ""
        try:
            with self._connected(host) as server:
                refused = server.send_message(mail, self._sender, self._recipients)
        except smtplib.SMTPAuthenticationError:
            raise AlertError(f"{host} refused user and password of CUSTOMERIO_SMTP_URL.") from None
        except smtplib.SMTPRecipientsRefused:
            raise AlertError(
                f"{host} refused every address of CUSTOMERIO_ALERT_EMAIL_TO."
            ) from None
        except smtplib.SMTPSenderRefused:
            raise AlertError(f"{host} refused the sender {self._sender}.") from None
        except smtplib.SMTPException as error:
            raise AlertError(f"{host} did not take the mail ({type(error).__name__}).") from None
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise AlertError(f"{host} cannot be reached: {reason}.") from None
        if refused:
            raise AlertError(f"{host} refused {len(refused)} of the addresses.")

    @contextmanager
    def _connected(self, host: str) -> Iterator[smtplib.SMTP]:
        tls = ssl.create_default_context()
        port = self._url.port or _SMTP_PORTS[self._url.scheme]
        is_plain = self._url.scheme == "smtp"
        server = (
            smtplib.SMTP(host, port, timeout=_TIMEOUT_SECONDS)
            if is_plain
            else smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_SECONDS, context=tls)
        )
        # Not as a context manager: its farewell fails where the connection did.
        with closing(server):
            server.ehlo()
            if is_plain and server.has_extn("starttls"):
                server.starttls(context=tls)
            elif is_plain and self._url.username and host not in _HERE:
                raise AlertError(
                    f"{host} offers no encryption, so the password is not sent; use smtps:// or"
                    " another port."
                )
            if self._url.username:
                server.login(unquote(self._url.username), unquote(self._url.password or ""))
            yield server
            # The mail is taken: a connection that breaks now breaks nothing.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()


class Slack:
    """An incoming webhook as Slack, Mattermost, Rocket.Chat and others have it."""

    name = "Slack webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> None:
        """Post one message."""
        text = f"*{_escaped(message.subject)}*\n{_escaped(message.body)}"
        post_json(self._url, {"text": text[:_SLACK_CHARACTERS]}, "CUSTOMERIO_ALERT_SLACK_URL")


class Webhook:
    """A webhook that takes JSON."""

    name = "webhook"

    def __init__(self, url: str) -> None:
        self._url = url

    def send(self, message: Message) -> None:
        """Post ``{"subject", "begun": [{id, title, text, link}], "over": […]}``."""
        body = {
            "subject": message.subject,
            "begun": list(map(Trouble._asdict, message.begun)),
            "over": list(map(Trouble._asdict, message.over)),
        }
        post_json(self._url, body, "CUSTOMERIO_ALERT_WEBHOOK_URL")


def ways(settings: Settings) -> list[Way]:
    """Return the ways that are set up."""
    found: list[Way] = []
    if settings.smtp_url is not None:
        recipients = settings.alert_email_to
        sender = settings.alert_email_from or recipients[0]
        found.append(Email(settings.smtp_url.get_secret_value(), sender, recipients))
    if settings.alert_slack_url is not None:
        found.append(Slack(settings.alert_slack_url.get_secret_value()))
    if settings.alert_webhook_url is not None:
        found.append(Webhook(settings.alert_webhook_url.get_secret_value()))
    return found


def post_json(
    url: str,
    body: Mapping[str, Any] | bytes,
    setting: str,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = _TIMEOUT_SECONDS,
) -> None:
    """Post JSON; any answer of 2xx will do.

    Args:
        url: a secret, which no error says.
        body: an object, or its bytes.
        setting: the name of the variable that the URL is of.
        headers: in addition.
        timeout: for connecting and for each part of the answer, s.

    Raises:
        AlertError: it was not taken.
    """
    host = urlsplit(url).hostname
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        response = httpx.post(
            url,
            content=content,
            headers={"content-type": "application/json", **(headers or {})},
            timeout=timeout,
        )
    except httpx.TimeoutException:
        raise AlertError(f"{host} did not answer within {timeout:g} s ({setting}).") from None
    except httpx.HTTPError as error:
        raise AlertError(f"{host} cannot be reached ({setting}, {type(error).__name__}).") from None
    if not response.is_success:
        raise AlertError(f"{host} answered {response.status_code} ({setting}).")


def _escaped(text: str) -> str:
    """Return text that Slack takes for no markup of its own."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
