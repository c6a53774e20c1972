"""What each metric of each channel carries (customerio-webhooks 1.5, 1.6)."""

import json
from collections.abc import Callable
from random import Random

from customerio_pipeline.simulator.chance import chance
from customerio_pipeline.simulator.deliveries import Delivery
from customerio_pipeline.simulator.ids import ulid
from customerio_pipeline.simulator.texts import (
    FAILURES,
    HOOK_TARGETS,
    MAIL_BODIES,
    SHORT_MESSAGES,
    SLACK_CHANNELS,
)

Data = dict[str, object]
_Maker = Callable[[Delivery, Random, Data], None]

_FAILURES = dict.fromkeys(("attempted", "failed", "undeliverable"), "failure_message")
_TEXT_MESSAGE = {
    "drafted": "",
    **_FAILURES,
    "sent": "recipient content",
    "delivered": "recipient",
    "converted": "recipient",
    "clicked": "recipient link_id href",
    "bounced": "recipient failure_message",
    "replied": "inbound_event_id to recipient",
    "dropped": "recipient failure_message",
}
_NOTICE = {
    "drafted": "",
    **_FAILURES,
    "sent": "recipient content",
    "clicked": "recipient href link_id",
    # Can be subscribed to, yet has no schema (customerio-webhooks 1.7).
    "converted": "recipient",
}
FIELDS: dict[str, dict[str, str]] = {
    "email": {
        "drafted": "drafted_mail",
        "attempted": "failure_message",
        "sent": "subject recipient content headers",
        "delivered": "subject recipient",
        "converted": "subject recipient",
        "unsubscribed": "subject recipient",
        "spammed": "subject recipient",
        "opened": "recipient subject open_flags",
        "clicked": "subject recipient href link_id machine",
        "bounced": "subject recipient failure_message",
        "dropped": "subject recipient failure_message",
        "undeliverable": "subject recipient failure_message",
        "failed": "subject failure_message",
        # Can be subscribed to, yet has no schema (customerio-webhooks 1.7).
        "deferred": "subject recipient failure_message",
    },
    "push": {
        "drafted": "",
        **_FAILURES,
        "sent": "recipients content",
        "delivered": "recipients",
        "opened": "recipients",
        "converted": "recipients",
        "clicked": "href link_id bare_recipients",
        "bounced": "failed_recipients",
        "dropped": "failed_recipients",
    },
    "sms": _TEXT_MESSAGE,
    "whatsapp": {**_TEXT_MESSAGE, "opened": "recipient"},
    "in_app": {
        "drafted": "",
        **_FAILURES,
        "sent": "recipient content",
        "opened": "",
        "clicked": "recipient href link_id tracked_response",
        "converted": "recipient",
    },
    "slack": _NOTICE,
    "webhook": _NOTICE,
    "customer": {
        "subscribed": "email_address",
        "unsubscribed": "email_address",
        "cio_subscription_preferences_changed": "email_address preferences",
    },
}
"""Names of `data`'s fields by channel and metric; some are left out at times, as on the wire."""


def _subject(delivery: Delivery, _rng: Random, data: Data) -> None:
    data["subject"] = delivery.subject


def _drafted_mail(delivery: Delivery, rng: Random, data: Data) -> None:
    if chance(rng, 0.5):
        data["subject"] = delivery.subject
        data["recipient"] = delivery.person.email


def _recipient(delivery: Delivery, rng: Random, data: Data) -> None:
    match delivery.channel:
        case "sms" | "whatsapp":
            data["recipient"] = delivery.person.phone
        case "slack":
            data["recipient"] = rng.choice(SLACK_CHANNELS)
        case "webhook":
            data["recipient"] = rng.choice(HOOK_TARGETS)
        case "in_app" if chance(rng, 0.5):
            data["recipient"] = delivery.person.id
        case _:
            data["recipient"] = delivery.person.email


def _recipients(delivery: Delivery, _rng: Random, data: Data) -> None:
    data["recipients"] = delivery.person.devices


def _bare_recipients(delivery: Delivery, _rng: Random, data: Data) -> None:
    data["recipients"] = [{"device_id": device["device_id"]} for device in delivery.person.devices]


def _failed_recipients(delivery: Delivery, rng: Random, data: Data) -> None:
    message = rng.choice(FAILURES["push"])
    devices = delivery.person.devices
    data["recipients"] = [{**device, "failure_message": message} for device in devices]


def _content(delivery: Delivery, rng: Random, data: Data) -> None:
    """Only webhooks with Body Content have it; JSON in a string for some channels."""
    if not delivery.with_content:
        return
    name = delivery.person.name
    match delivery.channel:
        case "email":
            data["content"] = rng.choice(MAIL_BODIES).replace("{name}", name)
        case "sms" | "whatsapp" | "slack":
            data["content"] = rng.choice(SHORT_MESSAGES)
        case _:
            message = {"title": delivery.subject, "body": f"Hi {name}", "link": delivery.url}
            data["content"] = json.dumps({"message": message}, ensure_ascii=False)


def _headers(delivery: Delivery, _rng: Random, data: Data) -> None:
    if delivery.with_headers:
        data["headers"] = {
            "List-Unsubscribe": [
                f"<https://acme.example/u/{delivery.id}>",
                "<mailto:u@acme.example>",
            ],
            "X-Campaign-Tag": ["spring"],
        }


def _failure_message(delivery: Delivery, rng: Random, data: Data) -> None:
    data["failure_message"] = rng.choice(FAILURES[delivery.channel])


def _href(delivery: Delivery, _rng: Random, data: Data) -> None:
    data["href"] = delivery.url


def _link_id(delivery: Delivery, _rng: Random, data: Data) -> None:
    data["link_id"] = delivery.link_id


def _open_flags(_delivery: Delivery, rng: Random, data: Data) -> None:
    if chance(rng, 0.3):
        data["proxied"] = True
        if chance(rng, 0.5):
            data["prefetched"] = True
    elif chance(rng, 0.05):
        # Nobody saw it opened, but a link in it was clicked.
        data["synthetic"] = True


def _machine(_delivery: Delivery, rng: Random, data: Data) -> None:
    if chance(rng, 0.2):
        data["machine"] = True


def _inbound_event_id(_delivery: Delivery, rng: Random, data: Data) -> None:
    data["inbound_event_id"] = ulid(rng.getrandbits(40), rng)


def _to(_delivery: Delivery, _rng: Random, data: Data) -> None:
    data["to"] = "+15550100200"


def _tracked_response(_delivery: Delivery, rng: Random, data: Data) -> None:
    if chance(rng, 0.5):
        data["tracked_response"] = "accepted"


def _email_address(delivery: Delivery, rng: Random, data: Data) -> None:
    data["email_address"] = delivery.person.email if chance(rng, 0.95) else None


def _preferences(delivery: Delivery, rng: Random, data: Data) -> None:
    """Add what a message caused, and, with Body Content on, what changed, as JSON in a string."""
    if chance(rng, 0.5):
        data |= {"delivery_id": delivery.id, "campaign_id": 5, "action_id": 96}
    if delivery.with_content:
        topics = {f"topic_{number}": chance(rng, 0.5) for number in range(1, 4)}
        data["content"] = json.dumps({"topics": topics})


_MAKERS: dict[str, _Maker] = {
    "bare_recipients": _bare_recipients,
    "content": _content,
    "drafted_mail": _drafted_mail,
    "email_address": _email_address,
    "failed_recipients": _failed_recipients,
    "failure_message": _failure_message,
    "headers": _headers,
    "href": _href,
    "inbound_event_id": _inbound_event_id,
    "link_id": _link_id,
    "machine": _machine,
    "open_flags": _open_flags,
    "preferences": _preferences,
    "recipient": _recipient,
    "recipients": _recipients,
    "subject": _subject,
    "to": _to,
    "tracked_response": _tracked_response,
}
MAKERS: dict[str, dict[str, tuple[_Maker, ...]]] = {
    channel: {
        metric: tuple(_MAKERS[name] for name in names.split()) for metric, names in metrics.items()
    }
    for channel, metrics in FIELDS.items()
}
"""Functions that add an event's own fields to `data`, by channel and metric."""
