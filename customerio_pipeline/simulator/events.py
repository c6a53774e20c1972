"""An endless stream of webhook bodies as Customer.io sends them; the same for the same seed."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import msgspec

from customerio_pipeline.simulator.chance import chance
from customerio_pipeline.simulator.deliveries import Delivery
from customerio_pipeline.simulator.fields import MAKERS
from customerio_pipeline.simulator.ids import ulid
from customerio_pipeline.simulator.legacy import legacy_event
from customerio_pipeline.simulator.malformed import malformed_body
from customerio_pipeline.simulator.people import make_people

START = 1_767_225_600.0
"""2026-01-01 00:00 UTC in seconds since the epoch: where simulated time begins."""

_PEOPLE = 2_000
# Deliveries under way at once: how far the events of one are spread.
_UNDER_WAY = 500
# Events that may come again.
_REMEMBERED = 1_000
# Share of the repeats that come with a change.
_CHANGED_REPEATS = 0.2
# Shares of the subscription events.
_CAUSED_BY_A_CHANNEL = 0.6
_OTHER_KEY = 0.1
_CHANNELS = ("email", "push", "sms", "whatsapp", "in_app", "slack", "webhook")
_SIMULATED_SECONDS_AN_EVENT = 0.05

Event = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class SimulatedEvent(NamedTuple):
    """One body to send."""

    body: bytes
    event_id: str | None
    """None when the body is malformed."""

    malformed: bool


def generate(
    seed: int,
    *,
    duplicates: float = 0.03,
    malformed: float = 0.001,
    legacy: float = 0.01,
    now: Callable[[], float] | None = None,
) -> Iterator[SimulatedEvent]:
    """Yield bodies without end, the same ones for the same arguments.

    Args:
        seed: decides everything.
        duplicates: share of bodies that repeat an earlier event, a fifth of them changed.
        malformed: share of bodies of which no row can come.
        legacy: share of deliveries in the format of before 2020.
        now: seconds since the epoch; None for simulated time, which begins at `START`.
    """
    rng = Random(seed)  # noqa: S311  data for tests, not secrets
    stream = _Stream(rng, legacy=legacy, now=now or _simulated_time())
    remembered: list[Event] = []
    while True:
        draw = rng.random()
        if draw < duplicates and remembered:
            event = _repeated(rng.choice(remembered), rng)
        else:
            event = stream.next_event()
            if draw > 1 - malformed:
                yield SimulatedEvent(malformed_body(event, rng), None, malformed=True)
                continue
            _remember(remembered, event, rng)
        yield SimulatedEvent(_body(event), str(event["event_id"]), malformed=False)


class _Stream:
    """Well-formed events, each new; many deliveries are under way at once."""

    def __init__(self, rng: Random, *, legacy: float, now: Callable[[], float]) -> None:
        self._rng = rng
        self._legacy = legacy
        self._now = now
        self._people = make_people(_PEOPLE, rng)
        self._under_way: list[Delivery] = []

    def next_event(self) -> Event:
        """Move one delivery a metric further."""
        rng = self._rng
        seconds = self._now()
        milliseconds = int(seconds * 1000)
        # The id is made when the event is reported, a little after it occurred.
        timestamp = int(seconds - 0.6 - rng.random())
        at = int(rng.random() * _UNDER_WAY)
        if at >= len(self._under_way):
            self._under_way.append(self._new_delivery(milliseconds))
            at = -1
        delivery = self._under_way[at]
        metric = delivery.metrics.pop()
        if not delivery.metrics:
            self._under_way[at] = self._under_way[-1]
            self._under_way.pop()
        event_id = ulid(milliseconds, rng)
        if delivery.is_legacy:
            return {"event_id": event_id, **legacy_event(delivery, metric, timestamp, rng)}
        return _event(delivery, metric, event_id, timestamp, rng)

    def _new_delivery(self, milliseconds: int) -> Delivery:
        rng = self._rng
        is_legacy = chance(rng, self._legacy)
        return Delivery(rng.choice(self._people), milliseconds, rng, is_legacy=is_legacy)


def _event(delivery: Delivery, metric: str, event_id: str, timestamp: int, rng: Random) -> Event:
    data = {**delivery.common}
    for add in MAKERS[delivery.channel][metric]:
        add(delivery, rng, data)
    object_type, key = delivery.channel, "object_type"
    if object_type == "customer":
        if chance(rng, _CAUSED_BY_A_CHANNEL):
            # The channel whose message made the person change a subscription.
            object_type = rng.choice(_CHANNELS)
        if metric == "cio_subscription_preferences_changed" and chance(rng, _OTHER_KEY):
            # As the vendor's schema has it for this metric alone.
            key = "object_type_type"
    return {
        "event_id": event_id,
        key: object_type,
        "metric": metric,
        "timestamp": timestamp,
        "data": data,
    }


def _repeated(event: Event, rng: Random) -> Event:
    if not chance(rng, _CHANGED_REPEATS):
        return event
    # As when the person was deleted between two attempts.
    return {**event, "data": {**event["data"], "customer_id": ""}}


def _remember(remembered: list[Event], event: Event, rng: Random) -> None:
    if len(remembered) < _REMEMBERED:
        remembered.append(event)
    else:
        remembered[int(rng.random() * _REMEMBERED)] = event


def _body(event: Event) -> bytes:
    # Customer.io's encoder is Go's, which writes these three as escapes.
    return (
        _encode(event).replace(b"&", b"\\u0026").replace(b"<", b"\\u003c").replace(b">", b"\\u003e")
    )


def _simulated_time() -> Callable[[], float]:
    ticks = iter(range(1 << 62))
    return lambda: START + next(ticks) * _SIMULATED_SECONDS_AN_EVENT
