"""Verdicts on Customer.io's signatures, and which deliveries they hold back.

A delivery is landed with its verdict, whatever that is. One that was to be signed and is not is
*held*: landed and not loaded, until it is released (`customerio_pipeline.landing.releases`).
"""

import hmac
from collections.abc import Sequence

from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.registry.records import LiveKey, SignatureMode, SignaturePolicy

UNCHECKED = "unchecked"
"""No key was there to check with, or the mode was off."""

INVALID = "invalid"
"""Held: no key made the signature, or there is none."""

STALE = "stale"
"""Held: signed, at another time than that of its receipt."""

HELD_VERDICTS = (INVALID, STALE)

ERASED = "erased"
"""Stands in the place of a verdict where nothing is left of a delivery but that it came
(`customerio_pipeline.landing.erasures`)."""

# Behind INVALID or STALE: the mode was `record`, and the delivery is loaded all the same.
_LOADED = ":loaded"
_VALID = "valid:"

_TIMESTAMP_AT = LANDED_HEADERS.index("x-cio-timestamp")
_SIGNATURE_AT = LANDED_HEADERS.index("x-cio-signature")
_SECOND_NS = 1_000_000_000


def verdict(
    policy: SignaturePolicy,
    headers: Sequence[str | None],
    body: bytes,
    received_ns: int,
    tolerance_seconds: float | None,
) -> str:
    """Return the verdict on a delivery: what its landing column ``signature`` says.

    `UNCHECKED`, ``valid:<id of the key>``, `INVALID`, `STALE`, or one of the latter two with
    ``:loaded`` behind it, which the mode `record` lets pass (customerio-webhooks 3).

    Args:
        policy: of the integration.
        headers: values of `LANDED_HEADERS`.
        body: as it was sent, byte for byte.
        received_ns: wall clock at receipt, ns since the epoch.
        tolerance_seconds: how far from it the signed time may be; None: as far as it likes.
    """
    if policy.in_force is SignatureMode.OFF:
        return UNCHECKED
    timestamp, signature = headers[_TIMESTAMP_AT], headers[_SIGNATURE_AT]
    key = matching_key(policy.keys, timestamp, signature, body)
    if key is None:
        found = INVALID
    elif tolerance_seconds is not None and _is_stale(timestamp, received_ns, tolerance_seconds):
        found = STALE
    else:
        return _VALID + key.id
    return found if policy.in_force is SignatureMode.REQUIRE else found + _LOADED


def matching_key(
    keys: Sequence[LiveKey], timestamp: str | None, signature: str | None, body: bytes
) -> LiveKey | None:
    """Return the key that made `signature`, None when none did (customerio-webhooks 3)."""
    if timestamp is None or signature is None:
        return None
    message = b"v0:%b:%b" % (timestamp.strip().encode(), body)
    # As bytes: text that is not ASCII cannot be compared.
    given = signature.strip().lower().encode()
    for key in keys:
        expected = hmac.digest(key.secret.encode(), message, "sha256").hex().encode()
        if hmac.compare_digest(expected, given):
            return key
    return None


def _is_stale(timestamp: str | None, received_ns: int, tolerance_seconds: float) -> bool:
    try:
        signed_ns = int(timestamp or "") * _SECOND_NS
    except ValueError:
        return True
    return abs(received_ns - signed_ns) > tolerance_seconds * _SECOND_NS
