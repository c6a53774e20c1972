"""Making Customer.io's webhook call an integration, or finding that it does.

Customer.io tells which URL each webhook calls, and we know our URLs by the hashes of their tokens,
so a webhook of ours is known for certain, whatever became of its name. Running it again therefore
changes nothing that is right already.
"""

import re
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from customerio_pipeline.connecting.app_api import AppApi, ReportingWebhook
from customerio_pipeline.connecting.events import ALL_EVENTS
from customerio_pipeline.errors import (
    AppApiError,
    AppApiUncertainError,
    UrlLimitError,
    WebhookConflictError,
)
from customerio_pipeline.registry.records import Integration, SignatureMode, WebhookUrl
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import webhook_url

# Hosts that Customer.io cannot reach.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_ENDPOINT = re.compile(r"https?://[^\s?#@\[\]]+/v1/webhooks/([A-Za-z0-9_-]{43})")
# customerio-webhooks 2
_LONGEST_URL = 255


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the webhook shall be like; None leaves it as it is, or as a new one is."""

    events: tuple[str, ...] | None = None
    enable: bool = False
    """Begin to send; needs a signing key."""

    url: str | None = field(default=None, repr=False)
    """A live URL of the integration; a secret."""

    name: str | None = None
    """Of a new webhook; the integration's when None."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What came of it."""

    webhook: ReportingWebhook
    """As Customer.io has it now."""

    url_id: str
    """Of the URL that it calls."""

    done: str
    """``created``, ``updated`` or ``unchanged``."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A webhook of Customer.io's that is ours, and the URL of ours that it calls, if known."""

    webhook: ReportingWebhook
    token: str | None = field(repr=False)
    url: WebhookUrl | None

    @property
    def is_live(self) -> bool:
        return self.url is not None and self.url.is_live


def connect(
    registry: Registry, api: AppApi, integration: Integration, public_url: str, wanted: Wanted
) -> Connection:
    """Create or update Customer.io's webhook so that it calls a live URL of the integration.

    Raises:
        WebhookConflictError: it cannot be done as things stand.
        UrlLimitError: a URL is needed and there are two live ones, whose tokens nobody knows.
        AppApiError: Customer.io refused or could not be asked; no URL is left over, except with
            `AppApiUncertainError`.
        RegistryError: the integration was deleted meanwhile.
    """
    return _Connecting(registry, api, integration, public_url, wanted).run()


@dataclass(frozen=True, slots=True)
class _Connecting:
    registry: Registry
    api: AppApi
    integration: Integration
    public_url: str
    wanted: Wanted

    def run(self) -> Connection:
        self._check_key()
        given = self._given_url()
        _check_is_public(self.wanted.url or self.public_url)
        found = self._find(self.api.webhooks())
        if self.wanted.url is not None and given is not None:
            return self._save(found, self.wanted.url, given.id)
        if found is not None and found.is_live and found.token and found.url:
            # Its token is known from Customer.io; the public address may be another by now.
            endpoint = webhook_url(self.public_url, found.token)
            return self._save(found, endpoint, found.url.id)
        return self._save_with_new_url(found)

    def _save_with_new_url(self, found: _Found | None) -> Connection:
        integration = self.integration
        try:
            new = self.registry.generate_url(integration)
        except UrlLimitError:
            live = [url.id for url in self.registry.urls(integration) if url.is_live]
            raise UrlLimitError(
                f'"{integration.name}" has two live URLs ({", ".join(live)}), and nothing but'
                " their hashes is kept: give the one to use with --url-from-stdin, or revoke one"
                f" with `customerio-pipeline urls revoke {integration.schema} URL_ID`."
            ) from None
        try:
            return self._save(found, webhook_url(self.public_url, new.token), new.id)
        except AppApiUncertainError as error:
            # Customer.io may call it already: were it revoked, deliveries would be refused.
            raise AppApiUncertainError(
                f"{error} The webhook may be there all the same, so its URL {new.id} stays live:"
                " run this again to find out, or revoke it."
            ) from None
        except AppApiError:
            self.registry.revoke_url(integration, new.id)
            raise

    def _save(self, found: _Found | None, endpoint: str, url_id: str) -> Connection:
        wanted = self.wanted
        if found is None:
            new = ReportingWebhook(
                name=wanted.name or self.integration.name,
                endpoint=endpoint,
                events=wanted.events or ALL_EVENTS,
                # Before there is a key, nothing that comes could be told from forgeries.
                disabled=not wanted.enable,
            )
            return Connection(self.api.create(new), url_id, "created")
        old = found.webhook
        events = wanted.events or old.events
        new = replace(
            old,
            endpoint=endpoint,
            # Their order means nothing.
            events=old.events if set(events) == set(old.events) else events,
            disabled=old.disabled and not wanted.enable,
        )
        if new == old:
            return Connection(old, url_id, "unchanged")
        self.api.update(new)
        return Connection(new, url_id, "updated")

    def _check_key(self) -> None:
        policy = self.registry.keys.policy(self.integration)
        if self.wanted.enable and not policy.keys and policy.mode is not SignatureMode.OFF:
            raise WebhookConflictError(
                f'"{self.integration.name}" has no signing key yet: copy it from the webhook\'s'
                " page in Customer.io and add it with"
                f" `customerio-pipeline keys add {self.integration.schema}`; then enable it."
            )

    def _given_url(self) -> WebhookUrl | None:
        url = self.wanted.url
        if url is None:
            return None
        known = self._known(url)
        if known is None or known[0] != self.integration.id or not known[1].is_live:
            raise WebhookConflictError(
                f'The URL on standard input is no live URL of "{self.integration.name}": give the'
                " whole webhook URL, in the line after the key."
            )
        return known[1]

    def _find(self, webhooks: list[ReportingWebhook]) -> _Found | None:
        """Return the webhook that calls, or called, the integration; else one of its name."""
        ours = []
        for webhook in webhooks:
            known = self._known(webhook.endpoint)
            if known is not None and known[0] == self.integration.id:
                ours.append(_Found(webhook, _token_of(webhook.endpoint), known[1]))
        best = [found for found in ours if found.is_live] or ours
        if len(best) > 1:
            ids = ", ".join(str(found.webhook.id) for found in best)
            raise WebhookConflictError(
                f'Several webhooks of Customer.io call "{self.integration.name}" (ids {ids}), so'
                " that every event comes more than once: delete all but one there."
            )
        return best[0] if best else self._of_name(webhooks)

    def _of_name(self, webhooks: list[ReportingWebhook]) -> _Found | None:
        name = self.wanted.name or self.integration.name
        for webhook in webhooks:
            if webhook.name != name:
                continue
            # One of a registry that was lost calls us in vain; any other is somebody else's.
            is_here = webhook.endpoint.startswith(f"{self.public_url}/v1/webhooks/")
            if not is_here or self._known(webhook.endpoint) is not None:
                raise WebhookConflictError(
                    f'Customer.io has a webhook "{name}" (id {webhook.id}) already, which calls'
                    " something else: rename it there, or name the new one with --webhook-name."
                )
            return _Found(webhook, None, None)
        return None

    def _known(self, endpoint: str) -> tuple[int, WebhookUrl] | None:
        token = _token_of(endpoint)
        return None if token is None else self.registry.url_of_token(token)


def _check_is_public(url: str) -> None:
    host = urlsplit(url).hostname
    if host in _LOOPBACK:
        raise WebhookConflictError(
            f"Customer.io cannot call {host}, which is this machine to every machine: set"
            " CUSTOMERIO_PUBLIC_URL to the receiver's address on the Internet."
        )


def _token_of(endpoint: str) -> str | None:
    found = _ENDPOINT.fullmatch(endpoint)
    return found[1] if found and len(endpoint) <= _LONGEST_URL else None
