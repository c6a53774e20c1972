"""When an imported record counts as received: never later than a webhook delivery of it would be.

The latest row of an event_id wins (design C5). A delivery comes after its event has happened
(customerio-webhooks 1.1), so the event's own time lets every delivery win, before and after.
"""

import msgspec

_SECOND_NS = 1_000_000_000


class _Timed(msgspec.Struct):
    timestamp: int | float | None = None


_decode = msgspec.json.Decoder(_Timed | list[_Timed]).decode


def event_time_ns(body: bytes, now_ns: int) -> int | None:
    """Return the ``timestamp`` of an event, ns since the epoch, or the earliest one of an array.

    None where it has none, or one that is no number of seconds up to now.
    """
    try:
        found = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    events = found if isinstance(found, list) else [found]
    times = [event.timestamp for event in events if event.timestamp is not None]
    if len(times) < max(1, len(events)):
        return None
    earliest = min(times)
    # Compared first: it may be beyond what an integer of 64 bits holds.
    if not 0 <= earliest <= now_ns / _SECOND_NS:
        return None
    return int(earliest * _SECOND_NS)
