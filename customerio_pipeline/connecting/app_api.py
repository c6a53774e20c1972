"""Customer.io's App API, as far as reporting webhooks go (customerio-webhooks 1.7).

What it answers is never shown as it is: it repeats the webhook's URL, which is a secret.
"""

from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from customerio_pipeline.errors import (
    AppApiError,
    AppApiRefusedError,
    AppApiUncertainError,
)

REGIONS = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}

TIMEOUT_SECONDS = 10.0
MAX_KEY_LENGTH = 512

_PATH = "/v1/reporting_webhooks"
_LONGEST_DETAIL = 200
_REFUSED_KEY = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_REFUSED_BODY = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


@dataclass(frozen=True, slots=True)
class ReportingWebhook:
    """A reporting webhook, as Customer.io has it or shall have it."""

    name: str
    endpoint: str = field(repr=False)
    """The URL that it calls; a secret."""

    events: tuple[str, ...]
    disabled: bool
    full_resolution: bool = False
    """Whether every open and click is reported, not only the first of a message."""

    with_content: bool = False
    """Whether what was sent is reported, too."""

    id: str | None = None
    """None before Customer.io has it."""

    @classmethod
    def of(cls, found: dict[str, Any]) -> Self:
        """Read one of Customer.io's answers; what is missing has the value that it means."""
        return cls(
            name=str(found.get("name") or ""),
            endpoint=str(found.get("endpoint") or ""),
            events=tuple(str(event) for event in found.get("events") or ()),
            disabled=bool(found.get("disabled")),
            full_resolution=bool(found.get("full_resolution")),
            with_content=bool(found.get("with_content")),
            id=str(found["id"]),
        )

    def as_body(self) -> dict[str, object]:
        """Return what creates it, or replaces it."""
        return {
            "name": self.name,
            "endpoint": self.endpoint,
            "events": list(self.events),
            "disabled": self.disabled,
            "full_resolution": self.full_resolution,
            "with_content": self.with_content,
        }


class AppApi:
    """The App API with one key.

    Every method raises `AppApiRefusedError` when the key or what was asked is at fault,
    `AppApiUncertainError` when a change may have been made all the same, and `AppApiError` when
    it was not made for another reason.
    """

    def __init__(self, base_url: str, key: str) -> None:
        """Remember where to ask; `key` must have passed `checked_key`."""
        self._base_url = base_url
        self._key = key
        self._host = urlsplit(base_url).netloc

    def webhooks(self) -> list[ReportingWebhook]:
        """Return every reporting webhook of the workspace that calls a URL."""
        answer = self._ask("GET", _PATH)
        try:
            # Null where there is none.
            found = answer["reporting_webhooks"] or []
            # The others run a script at Customer.io.
            return [
                ReportingWebhook.of(one) for one in found if one.get("type") in (None, "webhook")
            ]
        except (KeyError, TypeError, AttributeError):
            raise AppApiError(
                f"What {self._host} answered is no list of reporting webhooks: check the address"
                " (CUSTOMERIO_APP_API_URL)."
            ) from None

    def create(self, webhook: ReportingWebhook) -> ReportingWebhook:
        """Make it and return it with its id."""
        answer = self._ask("POST", _PATH, webhook)
        try:
            found = answer.get("reporting_webhook", answer)
            return replace(webhook, id=str(found["id"]))
        except (KeyError, TypeError, AttributeError):
            raise AppApiUncertainError(
                f"{self._host} took the webhook and did not tell its id."
            ) from None

    def update(self, webhook: ReportingWebhook) -> None:
        """Replace the one of the same id."""
        self._ask("PUT", f"{_PATH}/{quote(webhook.id or '', safe='')}", webhook)

    def _ask(self, method: str, path: str, webhook: ReportingWebhook | None = None) -> Any:  # noqa: ANN401  JSON
        body = None if webhook is None else webhook.as_body()
        lost = AppApiError if webhook is None else AppApiUncertainError
        try:
            response = httpx.request(
                method,
                f"{self._base_url}{path}",
                json=body,
                headers={"authorization": f"Bearer {self._key}"},
                timeout=TIMEOUT_SECONDS,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError):
            raise AppApiError(
                f"{self._host} cannot be reached: check the network, and the address where one is"
                " set (CUSTOMERIO_APP_API_URL)."
            ) from None
        except httpx.TimeoutException:
            raise lost(
                f"{self._host} did not answer within {TIMEOUT_SECONDS:g} s: try again later."
            ) from None
        except httpx.HTTPError:
            raise lost(f"{self._host} broke the connection: try again later.") from None
        if not response.is_success:
            secrets = [self._key] if webhook is None else [self._key, *_secrets_of(webhook)]
            raise self._error(response, secrets, lost)
        if method == "PUT":
            return None
        try:
            return response.json()
        except ValueError:
            raise lost(f"What {self._host} answered is no JSON: try again later.") from None

    def _error(
        self, response: httpx.Response, secrets: list[str], lost: type[AppApiError]
    ) -> AppApiError:
        status = response.status_code
        if status in _REFUSED_KEY:
            return AppApiRefusedError(
                f"{self._host} does not take this App API key: check that it is one of the App API"
                " (not of the Track API) and of this region (--region)."
            )
        if status in _REFUSED_BODY:
            return AppApiRefusedError(
                f"Customer.io does not take the webhook{_detail(response, secrets)}; where it is"
                " about the events, choose them with --event."
            )
        if status == HTTPStatus.NOT_FOUND:
            return AppApiRefusedError(
                f"{self._host} knows no such reporting webhook: it was deleted meanwhile, or"
                " CUSTOMERIO_APP_API_URL is wrong."
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            return AppApiError(
                f"Customer.io limits how often its App API is asked: try again {_when(response)}."
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return lost(f"{self._host} has trouble of its own (HTTP {status}): try again later.")
        return AppApiRefusedError(
            f"{self._host} answered HTTP {status}, as the App API does not: check the address"
            " (CUSTOMERIO_APP_API_URL)."
        )


def checked_key(key: str) -> str:
    """Return the key without white space around it.

    Raises:
        AppApiRefusedError: it cannot be a key.
    """
    key = key.strip()
    if not key:
        raise AppApiRefusedError(
            "There is no App API key on standard input: make one in Customer.io, under Account"
            " Settings > API Credentials > App API Keys."
        )
    if len(key) > MAX_KEY_LENGTH or not key.isascii() or not key.isprintable() or " " in key:
        raise AppApiRefusedError(
            "What is on standard input cannot be an App API key: give the key alone, in a line."
        )
    return key


def _secrets_of(webhook: ReportingWebhook) -> tuple[str, str]:
    return webhook.endpoint, webhook.endpoint.rpartition("/")[2]


def _detail(response: httpx.Response, secrets: list[str]) -> str:
    """Return what Customer.io says of it, as the end of a clause; nothing where it says nothing."""
    try:
        answer = response.json()
        meta = answer.get("meta") or {}
        found = answer.get("errors") or meta.get("errors") or [meta.get("error")]
        first = found[0]
        said = first.get("detail") if isinstance(first, dict) else first
    except (ValueError, AttributeError, LookupError, TypeError):
        return ""
    if not isinstance(said, str) or not said.strip():
        return ""
    for secret in secrets:
        said = said.replace(secret, "…")
    said = "".join(character if character.isprintable() else " " for character in said)
    return f" ({said.strip().rstrip('.')[:_LONGEST_DETAIL]})"


def _when(response: httpx.Response) -> str:
    seconds = response.headers.get("retry-after", "")
    return f"in {seconds} s" if seconds.isascii() and seconds.isdigit() else "in a minute"
