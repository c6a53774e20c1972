"""Whom an event is about: the customer ids and e-mail addresses that it names.

Which fields hold them: customerio-webhooks 1.3, 1.5 (`recipient`), 1.6 and, legacy, 1.8. What is
said of a person elsewhere (in the text of a message, say) makes no event that person's.
"""

import re
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

    customer_ids: list[str]
    addresses: list[str]
    """Texts with e-mail addresses in them, as `emails_in` finds them."""


def named_in(event: JsonObject) -> Named:
    """Return whom an event is about."""
    named = Named([], [])
    data = event.get("data")
    if type(data) is not dict:
        return named
    recipient = data.get("recipient")
    _add(named.customer_ids, data.get("customer_id"))
    _add(named.addresses, data.get("email_address"))
    _add(named.addresses, recipient)
    if event.get("object_type") == _IN_APP:
        _add(named.customer_ids, recipient)
    variables = data.get("variables")
    for person in (
        data.get("identifiers"),
        variables.get("customer") if type(variables) is dict else None,
    ):
        if type(person) is dict:
            _add(named.customer_ids, person.get("id"))
            _add(named.addresses, person.get("email"))
    return named


def named_in_text(text: str) -> Named:
    """Return whom a body names that is no event: every address in it, and ids where they stand."""
    ids = [found.group(found.lastgroup or 0) for found in _CUSTOMER_ID.finditer(text)]
    return Named(ids, [text])


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


def _add(texts: list[str], value: object) -> None:
    """Add a text, or a number as a text; a person that was deleted has a blank id."""
    if type(value) is str:
        if value:
            texts.append(value)
    elif type(value) is int:
        texts.append(str(value))
