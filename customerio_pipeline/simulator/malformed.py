"""Bodies that no table row can come of: none has a usable ``event_id``."""

from collections.abc import Callable
from random import Random

import msgspec

Event = dict[str, object]

_encode = msgspec.json.Encoder().encode
# One more than an event_id may have (stitch-loading 0.1).
_TOO_LONG = 1025


def _truncated(event: Event, rng: Random) -> bytes:
    body = _encode(event)
    return body[: rng.randrange(1, len(body))]


def _not_json(_event: Event, rng: Random) -> bytes:
    return rng.choice((b"ping", b"<html><body>502</body></html>", b"event_id=1&metric=sent", b"\0"))


def _array(event: Event, rng: Random) -> bytes:
    without_id = {key: value for key, value in event.items() if key != "event_id"}
    return _encode([without_id] * rng.randrange(1, 4))


def _missing_id(event: Event, _rng: Random) -> bytes:
    return _encode({key: value for key, value in event.items() if key != "event_id"})


def _null_id(event: Event, _rng: Random) -> bytes:
    return _encode({**event, "event_id": None})


def _numeric_id(event: Event, rng: Random) -> bytes:
    return _encode({**event, "event_id": rng.randrange(10**12)})


def _empty_id(event: Event, _rng: Random) -> bytes:
    return _encode({**event, "event_id": ""})


def _long_id(event: Event, _rng: Random) -> bytes:
    return _encode({**event, "event_id": "x" * _TOO_LONG})


def _empty(_event: Event, rng: Random) -> bytes:
    return rng.choice((b"", b" ", b"\n"))


def _not_a_number(event: Event, _rng: Random) -> bytes:
    return _encode({**event, "score": "NaN"}).replace(b'"NaN"', b"NaN")


def _invalid_utf8(event: Event, _rng: Random) -> bytes:
    return _encode({**event, "note": "?"}).replace(b'"note":"?"', b'"note":"caf\xe9 \xff"')


def _scalar(_event: Event, rng: Random) -> bytes:
    return rng.choice((b"null", b"true", b"42", b'"a string"', b"-0.0"))


def _two_documents(event: Event, _rng: Random) -> bytes:
    return _encode(event) * 2


MALFORMED: dict[str, Callable[[Event, Random], bytes]] = {
    "truncated": _truncated,
    "not JSON": _not_json,
    "array of objects without event_id": _array,
    "no event_id": _missing_id,
    "null event_id": _null_id,
    "numeric event_id": _numeric_id,
    "empty event_id": _empty_id,
    "over-long event_id": _long_id,
    "empty": _empty,
    "NaN": _not_a_number,
    "invalid UTF-8": _invalid_utf8,
    "scalar": _scalar,
    "two documents": _two_documents,
}
"""Makers of malformed bodies, from a well-formed event, by what is wrong."""

_MAKERS = tuple(MALFORMED.values())


def malformed_body(event: Event, rng: Random) -> bytes:
    """Return the event, spoilt in one of the ways of `MALFORMED`."""
    return rng.choice(_MAKERS)(event, rng)
