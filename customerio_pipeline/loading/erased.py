"""What is to be left out of every load, as it was erased (`customerio_pipeline.landing.erasures`).

An event is erased when it has the event_id of one that was found, or names the person and happened
or was received up to the moment of the erasure. What the person does later is new.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import msgspec

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.erasures import Erasure, Hashed, hashed
from customerio_pipeline.loading.decoding import JsonObject, Rejected, plain_body, read_events
from customerio_pipeline.loading.persons import Named, emails_in, named_in, named_in_text, object_of

_SECOND_NS = 1_000_000_000
_REMEMBERED = 100_000

_elements = msgspec.json.Decoder(list[msgspec.Raw])
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Masked(NamedTuple):
    """What rules on fields make of the values that are being erased."""

    customer_ids: frozenset[str]
    emails: frozenset[str]


class Erased:
    """Tells of events whether they were erased."""

    def __init__(self, erasures: Sequence[Erasure] = (), masked: Masked | None = None) -> None:
        self.erasures = erasures
        self.masked = masked or Masked(frozenset(), frozenset())
        moments: defaultdict[tuple[str, Hashed], dict[str, int]] = defaultdict(dict)
        event_ids: defaultdict[str, set[str]] = defaultdict(set)
        for each in erasures:
            event_ids[each.salt].update(each.event_ids)
            for kind, those in (
                (Hashed.CUSTOMER_ID, each.customer_ids),
                (Hashed.EMAIL, each.emails),
            ):
                known = moments[each.salt, kind]
                for digest in those:
                    known[digest] = max(each.erased_at_ns, known.get(digest, 0))
        self._moments = dict(moments)
        self._event_ids = dict(event_ids)
        self.last_ns = max((each.erased_at_ns for each in erasures), default=-1)
        """When the last erasure was; -1 if there was none. Ns since the epoch."""

        # The same persons come again and again.
        self._moment_of_id = lru_cache(_REMEMBERED)(partial(self._find_moment, Hashed.CUSTOMER_ID))
        self._moment_of_address = lru_cache(_REMEMBERED)(self._find_by_address)

    def __bool__(self) -> bool:
        """Whether anything was erased."""
        return bool(self.erasures)

    def has_event(self, event_id: object) -> bool:
        """Tell whether an event of this id was found when something was erased."""
        return type(event_id) is str and any(
            hashed(salt, Hashed.EVENT_ID, event_id) in those
            for salt, those in self._event_ids.items()
        )

    def covers(self, event: JsonObject | Rejected, received_us: int) -> bool:
        """Tell whether an event was erased.

        Args:
            event: what `read_events` made of it.
            received_us: its receipt, µs since the epoch.
        """
        if not self.erasures:
            return False
        read = object_of(event) if isinstance(event, Rejected) else event
        if read is None:
            named = named_in_text(event.record) if isinstance(event, Rejected) else None
            return named is not None and self._is_before(named, received_us * 1000)
        if self.has_event(read.get("event_id")):
            return True
        moment_ns = min(received_us * 1000, _happened_ns(read, received_us * 1000))
        return moment_ns <= self.last_ns and self._is_before(named_in(read), moment_ns)

    def _is_before(self, named: Named, moment_ns: int) -> bool:
        return any(moment_ns <= self._moment_of_id(value) for value in named.customer_ids) or any(
            moment_ns <= self._moment_of_address(text) for text in named.addresses
        )

    def _find_by_address(self, text: str) -> int:
        emails = emails_in(text)
        return max((self._find_moment(Hashed.EMAIL, email) for email in emails), default=-1)

    def _find_moment(self, kind: Hashed, value: str) -> int:
        """Return when a person was erased last, ns since the epoch; -1: never."""
        return max(
            (
                those.get(hashed(salt, kind, value), -1)
                for (salt, of), those in self._moments.items()
                if of is kind
            ),
            default=-1,
        )

    def names_customer(self, value: str) -> bool:
        """Tell whether a customer id is that of a person who was erased at any time."""
        return self._moment_of_id(value) >= 0

    def names_address(self, text: str) -> bool:
        """Tell whether an address in a text is that of a person who was erased at any time."""
        return self._moment_of_address(text) >= 0


class Rest(NamedTuple):
    """What is left of a body from which something was erased."""

    body: bytes | None
    """None when it is nothing."""

    events: int
    """Erased ones."""

    event_ids: frozenset[str]
    """Those of them that have one."""


def rest_of(
    body: bytes, content_encoding: str | None, received_us: int, erased: Erased
) -> Rest | None:
    """Return what is left of a body; None if nothing of it was erased.

    Of an array the other events stay as they are, byte for byte.

    Raises:
        LandingError: it is an array that cannot be taken apart.
    """
    events = read_events(body, content_encoding)
    covered = [erased.covers(event, received_us) for event in events]
    if not any(covered):
        return None
    those = [event for event, gone in zip(events, covered, strict=True) if gone]
    event_ids = frozenset(
        str(event["event_id"]) for event in those if not isinstance(event, Rejected)
    )
    if all(covered):
        return Rest(None, len(those), event_ids)
    plain = plain_body(body, content_encoding) or b""
    try:
        elements = _elements.decode(plain.removeprefix(_BYTE_ORDER_MARK))
    except (msgspec.DecodeError, RecursionError, ValueError):
        elements = []
    if len(elements) != len(events):
        raise LandingError("An array of events cannot be taken apart.")
    kept = (bytes(part) for part, gone in zip(elements, covered, strict=True) if not gone)
    return Rest(b"[%b]" % b",".join(kept), len(those), event_ids)


def _happened_ns(event: JsonObject, otherwise: int) -> int:
    seconds = event.get("timestamp")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return otherwise
    try:
        return int(seconds * _SECOND_NS)
    except (OverflowError, ValueError):
        return otherwise
