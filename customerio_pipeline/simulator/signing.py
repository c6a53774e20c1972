"""Signatures as Customer.io makes them (customerio-webhooks 3)."""

import hmac


def sign(key: str, timestamp: int, body: bytes) -> str:
    """Return the ``X-CIO-Signature`` of `body` sent at `timestamp`, seconds since the epoch."""
    return hmac.digest(key.encode(), b"v0:%d:%b" % (timestamp, body), "sha256").hex()
