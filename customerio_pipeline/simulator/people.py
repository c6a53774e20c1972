"""The people whom the simulated messages go to."""

from random import Random
from typing import NamedTuple

from customerio_pipeline.simulator.chance import chance
from customerio_pipeline.simulator.ids import android_token, cio_id, ios_token

_FIRST_NAMES = (
    "Ada", "Björn", "Chloé", "Dmitri", "Esra", "Fatima", "Grace", "Héctor", "Ines", "Jun",
    "Kofi", "Łucja", "Mei", "Nnamdi", "Olga", "Priya", "Quentin", "Rosa", "Søren", "Thanh",
)  # fmt: skip
_LAST_NAMES = (
    "Adeyemi", "Berg", "Çelik", "Dubois", "Eriksson", "Fischer", "García", "Haddad", "Ito",
    "Jansen", "Kowalski", "Lê", "Müller", "Novák", "O'Brien", "Petrov", "Rossi", "Singh",
)  # fmt: skip
_MAIL_HOSTS = ("example.com", "example.org", "mail.example.net", "firma.example")
_COUNTRY_CODES = ("1", "31", "33", "44", "49", "81", "91", "234")


class Person(NamedTuple):
    """A recipient; `customer_id` is absent, empty or null for some, as on the wire."""

    id: str
    """Text even where it looks like a number: leading zeros count."""

    name: str
    email: str
    phone: str
    identifiers: dict[str, str | None]
    customer_id: dict[str, str | None]
    """The field of this name, or nothing."""

    devices: tuple[dict[str, str], ...]


def make_people(count: int, rng: Random) -> list[Person]:
    """Return `count` people, the same for the same state of `rng`."""
    return [_make_person(number, rng) for number in range(count)]


def _make_person(number: int, rng: Random) -> Person:
    first, last = rng.choice(_FIRST_NAMES), rng.choice(_LAST_NAMES)
    # A tenth of the workspaces' ids are no numbers; the others have leading zeros.
    key = f"{200_000 + number:07d}" if chance(rng, 0.9) else f"user-{rng.getrandbits(64):016x}"
    tag = f"+{rng.randrange(100)}" if chance(rng, 0.1) else ""
    email = f"{first}.{last.replace(' ', '')}{tag}@{rng.choice(_MAIL_HOSTS)}".lower()
    return Person(
        id=key,
        name=f"{first} {last}",
        email=email,
        phone=f"+{rng.choice(_COUNTRY_CODES)}{rng.randrange(10**8, 10**10)}",
        identifiers=_identifiers(key, email, rng),
        customer_id=_customer_id(key, rng),
        devices=tuple(_device(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))),
    )


def _identifiers(key: str, email: str, rng: Random) -> dict[str, str | None]:
    """Return the identifiers of a workspace of one of the four kinds seen."""
    kinds: tuple[dict[str, str | None], ...] = (
        {"id": key, "email": email, "cio_id": cio_id(rng)},
        {"id": key, "email": None, "cio_id": cio_id(rng)},
        {"id": key, "email": email},
        {"id": key},
    )
    return rng.choices(kinds, (80, 8, 6, 6))[0]


def _customer_id(key: str, rng: Random) -> dict[str, str | None]:
    """Return the deprecated field: blank in one way or another when the person was deleted."""
    kinds: tuple[dict[str, str | None], ...] = (
        {"customer_id": key},
        {"customer_id": ""},
        {"customer_id": None},
        {},
    )
    return rng.choices(kinds, (96, 2, 1, 1))[0]


def _device(rng: Random) -> dict[str, str]:
    if chance(rng, 0.5):
        return {"device_id": android_token(rng), "device_platform": "android"}
    return {"device_id": ios_token(rng), "device_platform": "ios"}
