"""Deliveries: one message to one person, what sent it, and the events that it goes through."""

from itertools import accumulate
from random import Random

from customerio_pipeline.simulator.chance import chance
from customerio_pipeline.simulator.ids import delivery_id, ulid
from customerio_pipeline.simulator.people import Person
from customerio_pipeline.simulator.texts import LINKS, SUBJECTS

_Paths = tuple[tuple[tuple[str, ...], int], ...]

# How often a channel is used, and by what metrics a delivery of it may go, with weights.
_CHANNELS = {
    "email": 50,
    "push": 16,
    "sms": 12,
    "whatsapp": 6,
    "in_app": 7,
    "slack": 2,
    "webhook": 3,
    "customer": 4,
}
_FAILED_PATHS: _Paths = (
    (("attempted",), 2),
    (("failed",), 1),
    (("undeliverable",), 1),
    (("drafted",), 1),
)
_TEXT_MESSAGE_PATHS: _Paths = (
    (("sent", "delivered"), 40),
    (("attempted", "sent", "delivered"), 5),
    (("sent", "delivered", "clicked", "converted"), 15),
    (("sent", "delivered", "replied"), 5),
    (("sent", "bounced"), 4),
    (("dropped",), 1),
    *_FAILED_PATHS,
)
_PATHS: dict[str, _Paths] = {
    "email": (
        (("sent", "delivered"), 40),
        (("drafted", "sent", "delivered", "opened"), 5),
        (("sent", "delivered", "opened"), 30),
        (("sent", "delivered", "opened", "opened", "clicked"), 12),
        (("sent", "delivered", "opened", "clicked", "clicked", "converted"), 8),
        (("sent", "delivered", "opened", "unsubscribed"), 2),
        (("sent", "delivered", "spammed"), 1),
        (("sent", "deferred", "delivered"), 1),
        (("sent", "bounced"), 3),
        (("dropped",), 1),
        *_FAILED_PATHS,
    ),
    "push": (
        (("sent", "delivered"), 40),
        (("sent", "delivered", "opened"), 20),
        (("sent", "delivered", "opened", "clicked", "converted"), 10),
        (("sent", "bounced"), 4),
        (("dropped",), 1),
        *_FAILED_PATHS,
    ),
    "sms": _TEXT_MESSAGE_PATHS,
    "whatsapp": ((("sent", "delivered", "opened"), 30), *_TEXT_MESSAGE_PATHS),
    "in_app": (
        (("sent",), 20),
        (("sent", "opened"), 30),
        (("sent", "opened", "clicked", "converted"), 20),
        *_FAILED_PATHS,
    ),
    "slack": ((("sent",), 20), (("sent", "clicked", "converted"), 5), *_FAILED_PATHS),
    "webhook": ((("sent",), 20), (("sent", "clicked", "converted"), 5), *_FAILED_PATHS),
    "customer": (
        (("subscribed",), 4),
        (("unsubscribed",), 4),
        (("cio_subscription_preferences_changed",), 4),
    ),
}
_CHANNEL_NAMES = tuple(_CHANNELS)
_CHANNEL_WEIGHTS = tuple(accumulate(_CHANNELS.values()))
_PATH_CHOICES = {
    channel: (tuple(path for path, _ in paths), tuple(accumulate(weight for _, weight in paths)))
    for channel, paths in _PATHS.items()
}

LEGACY_PATHS: tuple[tuple[str, ...], ...] = (
    ("drafted", "sent", "delivered", "opened", "clicked"),
    ("sent", "delivered", "opened", "converted"),
    ("sent", "bounced"),
    ("sent", "deferred", "delivered", "unsubscribed"),
    ("attempted", "sent", "delivered", "spammed"),
    ("dropped",),
    ("failed",),
)

_VARIANTS = ("campaign", "newsletter", "broadcast", "transactional")
_VARIANT_WEIGHTS = tuple(accumulate((55, 20, 15, 10)))

# Shares of deliveries.
_WITH_CONTENT = 0.4
_WITH_HEADERS = 0.5


class Delivery:
    """One message to one person on its way through its metrics."""

    __slots__ = (
        "channel",
        "common",
        "id",
        "is_legacy",
        "link_id",
        "metrics",
        "person",
        "subject",
        "url",
        "with_content",
        "with_headers",
    )

    def __init__(self, person: Person, milliseconds: int, rng: Random, *, is_legacy: bool) -> None:
        self.person = person
        self.is_legacy = is_legacy
        if is_legacy:
            self.channel = "email"
            path = rng.choice(LEGACY_PATHS)
        else:
            self.channel = rng.choices(_CHANNEL_NAMES, cum_weights=_CHANNEL_WEIGHTS)[0]
            paths, weights = _PATH_CHOICES[self.channel]
            path = rng.choices(paths, cum_weights=weights)[0]
        # Taken from the end.
        self.metrics = list(reversed(path))
        self.id = delivery_id(rng)
        self.subject = rng.choice(SUBJECTS)
        self.url = rng.choice(LINKS)
        self.link_id = rng.randrange(1, 30)
        self.with_content = chance(rng, _WITH_CONTENT)
        self.with_headers = self.with_content and chance(rng, _WITH_HEADERS)
        self.common = _common_fields(self, milliseconds, rng)


def _common_fields(delivery: Delivery, milliseconds: int, rng: Random) -> dict[str, object]:
    """Return the fields of all events of the delivery: person, and one of the four variants."""
    person: dict[str, object] = {**delivery.person.customer_id}
    identifiers = {"identifiers": delivery.person.identifiers}
    if delivery.channel == "customer":
        return person | identifiers
    message: dict[str, object] = {"delivery_id": delivery.id}
    match rng.choices(_VARIANTS, cum_weights=_VARIANT_WEIGHTS)[0]:
        case "transactional" if delivery.channel in ("email", "push"):
            # The send call takes a number or a name.
            message["transactional_message_id"] = rng.choice((2, 3, 14, "password_reset"))
        case "newsletter":
            message["newsletter_id"] = rng.randrange(1, 80) if chance(rng, 0.98) else None
            message["content_id"] = rng.randrange(1, 200)
        case "broadcast":
            message |= _broadcast(milliseconds, rng)
        case _:
            message |= _campaign(milliseconds, rng)
    return person | message | identifiers


def _campaign(milliseconds: int, rng: Random) -> dict[str, object]:
    fields: dict[str, object] = {
        "action_id": rng.randrange(1, 900),
        "campaign_id": rng.randrange(1, 60) if chance(rng, 0.98) else None,
        "journey_id": ulid(milliseconds - rng.randrange(10**9), rng),
    }
    if chance(rng, 0.6):
        fields["trigger_event_id"] = ulid(milliseconds - rng.randrange(10**6), rng)
    if chance(rng, 0.1):
        fields["parent_action_id"] = rng.randrange(1, 900)
    return fields


def _broadcast(milliseconds: int, rng: Random) -> dict[str, object]:
    fields: dict[str, object] = {
        "action_id": rng.randrange(1, 900),
        "broadcast_id": rng.randrange(1, 20) if chance(rng, 0.98) else None,
    }
    # Required by the vendor's schema, and missing in most published samples.
    if chance(rng, 0.5):
        fields["trigger_id"] = rng.randrange(1, 5_000)
        fields["journey_id"] = ulid(milliseconds - rng.randrange(10**9), rng)
    return fields
