"""Identifiers as Customer.io makes them (customerio-webhooks 1.2-1.5)."""

from base64 import urlsafe_b64encode
from random import Random

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]

_DELIVERY_ID_BYTES = 20
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def ulid(milliseconds: int, rng: Random) -> str:
    """Return a ULID of 26 characters: `milliseconds` since the epoch, then 80 random bits."""
    number = milliseconds << 80 | rng.getrandbits(80)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def delivery_id(rng: Random) -> str:
    """Return an id such as ``RPILAgUBcRhIBqSfeiIwdIYJKxTY``; some contain ``-``, ``_``, ``=``."""
    return urlsafe_b64encode(rng.randbytes(_DELIVERY_ID_BYTES)).decode()


def cio_id(rng: Random) -> str:
    """Return Customer.io's own id of a person, such as ``d9c106000001``."""
    return f"{rng.getrandbits(48):012x}"


def android_token(rng: Random) -> str:
    """Return a token of Firebase Cloud Messaging: more than 150 characters with ``:-_``."""
    letters = rng.choices(_ALPHABET, k=151)
    return "".join(letters[:22]) + ":APA91b" + "".join(letters[22:])


def ios_token(rng: Random) -> str:
    """Return a token of Apple's push service: 64 hex digits."""
    return f"{rng.getrandbits(256):064x}"
