"""Whom an event is about: the customer ids and e-mail addresses that it names.

Which fields hold them: customerio-webhooks 1.3, 1.5 (`recipient`), 1.6 and, legacy, 1.8. What is
said of a person elsewhere (in the text of a message, say) makes no event that person's.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from customerio_pipeline.loading.decoding import JsonObject, Rejected

CUSTOMER_ID_PATHS = (
    ("data", "customer_id"),
    ("data", "identifiers", "id"),
    ("data", "variables", "customer", "id"),
)
EMAIL_PATHS = (
    ("data", "identifiers", "email"),
    ("data", "email_address"),
    ("data", "recipient"),
    ("data", "variables", "customer", "email"),
)
RECIPIENT_PATH = ("data", "recipient")
"""Of an in-app message it may be a customer id, too (customerio-webhooks 1.5)."""

_IN_APP = "in_app"

_EMAIL = re.compile(r"[^\s<>\"',;:()\[\]\\]+@[^\s<>\"',;:()\[\]\\]+")
_CUSTOMER_ID = re.compile(
    r'"customer_id"\s*:\s*(?:"(?P<text>[^"]*)"|(?P<number>\d+))'
    r'|"(?:identifiers|customer)"\s*:\s*\{[^{}]*?"id"\s*:\s*(?:"(?P<text_in>[^"]*)"|(?P<number_in>\d+))'
)


class Named(NamedTuple):
    """Whom an event names."""

    customer_ids: frozenset[str]
    emails: frozenset[str]
    """As `plain_email` has them."""


def named_in(event: JsonObject) -> Named:
    """Return whom an event is about."""
    ids = [_at(event, path) for path in CUSTOMER_ID_PATHS]
    if event.get("object_type") == _IN_APP:
        ids.append(_at(event, RECIPIENT_PATH))
    emails = (_at(event, path) for path in EMAIL_PATHS)
    return Named(_texts(ids), frozenset().union(*map(emails_in, _texts(emails))))


def named_in_text(text: str) -> Named:
    """Return whom a body names that is no event: every address in it, and ids where they stand."""
    ids = (found.group(found.lastgroup or 0) for found in _CUSTOMER_ID.finditer(text))
    return Named(_texts(ids), emails_in(text))


def object_of(rejected: Rejected) -> JsonObject | None:
    """Return the event that a rejected record is, if it is an object at all."""
    try:
        found = msgspec.json.decode(rejected.record)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None
    return found if type(found) is dict else None


def emails_in(text: str) -> frozenset[str]:
    """Return the addresses in a text, such as ``Ann <ann@example.com>``, and the text itself."""
    found = (each.rstrip(".") for each in _EMAIL.findall(text))
    return frozenset(map(plain_email, [text, *found])) if "@" in text else frozenset()


def plain_email(address: str) -> str:
    """Return an address as it is compared: without regard to case, or spaces around it."""
    return address.strip().casefold()


def _at(event: JsonObject, path: Iterable[str]) -> object:
    value: object = event
    for key in path:
        if type(value) is not dict:
            return None
        value = value.get(key)
    return value


def _texts(values: Iterable[object]) -> frozenset[str]:
    """Return texts, and numbers as texts; a person that was deleted has a blank id."""
    return frozenset(
        str(value)
        for value in values
        if value != "" and isinstance(value, (str, int)) and not isinstance(value, bool)
    )
