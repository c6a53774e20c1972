"""From a landed body to its events, each usable or with the reason why not."""

import zlib
from typing import NamedTuple

import msgspec

from customerio_pipeline.loading.exact_json import (
    InvalidJsonError,
    NumberText,
    read_exactly,
    replace_unstorable,
)

MAX_EVENT_ID_LENGTH = 1024
"""Characters of an event_id (stitch-loading 3.19)."""

MAX_EVENT_ID_BYTES = 2600
"""Its bytes in UTF-8: the most that fits into an entry of PostgreSQL's index, with some room."""

MAX_DECODED_BYTES = 64 * 1024 * 1024
"""Size up to which a compressed body is unpacked."""

_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode

JsonObject = dict[str, object]


class Rejected(NamedTuple):
    """An event, or a whole body, that cannot become a row."""

    record: str
    """As much of it as text can hold."""

    reason: str


def read_events(body: bytes, content_encoding: str | None) -> list[JsonObject | Rejected]:
    """Return the events of a body, in order; at least one item, never an exception.

    A body is one event, or an array of them (stitch-loading H-4). An item is the event with a
    usable ``event_id``, or `Rejected` with a reason that a person understands.
    """
    plain = plain_body(body, content_encoding)
    if plain is None:
        return [_rejected(body, f"body is not valid {content_encoding}, or too long")]
    body = plain
    try:
        document = _read(body)
    except UnicodeDecodeError as error:
        return [_rejected(body, f"body is not UTF-8: {error.reason} at byte {error.start}")]
    except InvalidJsonError as error:
        return [_rejected(body, f"body is not JSON: {error}" if body else "body is empty")]
    if isinstance(document, list):
        return [_checked(element) for element in document] or [
            _rejected(body, "body is an empty array")
        ]
    if type(document) is not dict:
        return [_rejected(body, f"body is {_json_type(document)}, not an object")]
    return [_checked(document)]


def plain_body(body: bytes, content_encoding: str | None) -> bytes | None:
    """Return a body unpacked; None if it cannot be, or becomes too long."""
    if content_encoding and content_encoding.strip().lower() in _COMPRESSIONS:
        return _unpack(body)
    return body


def _read(body: bytes) -> object:
    # The fast decoder would let NUL characters pass, which no warehouse can store.
    if b"\\u0000" not in body:
        try:
            return _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            pass  # the exact reader tells what is wrong, or right after all
    return read_exactly(body.removeprefix(_BYTE_ORDER_MARK).decode())


def _unpack(body: bytes) -> bytes | None:
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        unpacked = unpacker.decompress(body, MAX_DECODED_BYTES)
    except zlib.error:
        return None
    return unpacked if unpacker.eof else None


def _checked(event: object) -> JsonObject | Rejected:
    if type(event) is not dict:
        return Rejected(_text(event), f"array element is {_json_type(event)}, not an object")
    event_id = event.get("event_id")
    if (
        type(event_id) is str
        and 0 < len(event_id) <= MAX_EVENT_ID_LENGTH
        and len(event_id.encode()) <= MAX_EVENT_ID_BYTES
    ):
        return event
    if "event_id" not in event:
        reason = "event_id is missing"
    elif event_id == "":
        reason = "event_id is empty"
    elif type(event_id) is str and len(event_id) > MAX_EVENT_ID_LENGTH:
        reason = f"event_id is longer than {MAX_EVENT_ID_LENGTH} characters"
    elif type(event_id) is str:
        reason = f"event_id is longer than {MAX_EVENT_ID_BYTES} bytes"
    else:
        reason = f"event_id is {_json_type(event_id)}, not text"
    return Rejected(_text(event), reason)


def _rejected(body: bytes, reason: str) -> Rejected:
    return Rejected(replace_unstorable(body.decode(errors="replace")), reason)


def _text(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, dict):
        return "an object"
    if type(value) is str:
        return "text"
    if isinstance(value, (int, float, NumberText)):
        return "a number"
    return "an array"
