"""A test event, sent the way that Customer.io's events come."""

import json
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import structlog
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration, LiveKey
from customerio_pipeline.registry.tokens import webhook_url
from customerio_pipeline.simulator.signing import sign

# Every worker knows a new URL within a second (design C8); then the sender's patience of 4 s.
_KNOWN_SECONDS = 2.0
_TRY_AGAIN_SECONDS = 0.1
_TIMEOUT_SECONDS = 4.0

_WHAT_TO_DO = {
    401: "Another installation answers there, or the receiver cannot read the registry.",
    403: "The receiver takes deliveries from certain networks only (CUSTOMERIO_ALLOW_NETWORKS), and"
    " this machine is in none of them.",
    404: "Something else than the receiver answers there, or a proxy changes the path.",
    503: "The receiver cannot store anything now: its log says why.",
}

log = structlog.get_logger()


class _Outcome(NamedTuple):
    """What became of the test event."""

    is_taken: bool
    text: str


@post("/integrations/{schema:str}/test-event", sync_to_thread=True)
def send_test_event(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Send one event to the receiver, by way of its public address."""
    integration = services.registry.of_schema(schema)
    outcome = _send(services, integration)
    log.info("test_event_sent", schema=schema, is_taken=outcome.is_taken)
    is_part = bool(request.headers.get("hx-request"))
    return page(
        request,
        "test_event_part.html" if is_part else "test_event.html",
        integration=integration,
        outcome=outcome,
        public_url=services.settings.public_url,
    )


def _send(services: Services, integration: Integration) -> _Outcome:
    # Nobody knows the tokens of its URLs, so the event has one of its own, for as long as it takes.
    url = services.registry.begin_test(integration)
    try:
        keys = services.registry.keys.policy(integration).keys
        return _post(webhook_url(services.settings.public_url, url.token), keys)
    finally:
        services.registry.end_test(integration, url.id)


def _post(url: str, keys: Sequence[LiveKey]) -> _Outcome:
    body = _body()
    headers = {"content-type": "application/json"}
    if keys:
        timestamp = int(time.time())
        headers["x-cio-timestamp"] = str(timestamp)
        headers["x-cio-signature"] = sign(keys[0].secret, timestamp, body)
    give_up_at = time.monotonic() + _KNOWN_SECONDS
    while True:
        began = time.monotonic()
        try:
            answer = httpx.post(
                url,
                content=body,
                headers=headers,
                timeout=_TIMEOUT_SECONDS,
            )
        except httpx.HTTPError as error:
            # Its message may quote the URL.
            return _Outcome(is_taken=False, text=f"No answer ({type(error).__name__}).")
        milliseconds = round((time.monotonic() - began) * 1000)
        if answer.status_code == httpx.codes.OK:
            return _Outcome(
                is_taken=True, text=f"The receiver answered 200 after {milliseconds} ms."
            )
        if answer.status_code != httpx.codes.UNAUTHORIZED or time.monotonic() > give_up_at:
            what = _WHAT_TO_DO.get(answer.status_code, "")
            return _Outcome(
                is_taken=False, text=f"The answer was {answer.status_code}. {what}".strip()
            )
        time.sleep(_TRY_AGAIN_SECONDS)


def _body() -> bytes:
    """Return an event of a metric that no report counts."""
    event = {
        "event_id": f"test-{secrets.token_hex(8)}",
        "object_type": "test",
        "metric": "test",
        "timestamp": int(datetime.now(UTC).timestamp()),
        "data": {"delivery_id": "test", "identifiers": {"id": "test"}},
    }
    return json.dumps(event).encode()
