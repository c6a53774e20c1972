"""Webhook tokens and the URLs that carry them, tokens of the API, and ids (design C8)."""

import hashlib
import secrets

_TOKEN_BYTES = 32
_ID_BYTES = 4

TEST_ID_PREFIX = "test-"
"""Of the ids of URLs that live for one test event."""


def new_token() -> str:
    """Return a token of 256 random bits: 43 characters that need no escaping in a URL."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def new_url_id(*, is_test: bool = False) -> str:
    """Return a short id such as ``url_3f9a2c1d``, which may be shown anywhere."""
    return f"{TEST_ID_PREFIX if is_test else 'url_'}{secrets.token_hex(_ID_BYTES)}"


def new_key_id() -> str:
    """Return a short id such as ``key_3f9a2c1d``, which may be shown anywhere."""
    return f"key_{secrets.token_hex(_ID_BYTES)}"


def new_rule_id() -> str:
    """Return a short id such as ``rule_3f9a2c1d``, which may be shown anywhere."""
    return f"rule_{secrets.token_hex(_ID_BYTES)}"


def new_hash_key() -> str:
    """Return 256 random bits as hexadecimal digits."""
    return secrets.token_hex(_TOKEN_BYTES)


def new_api_token_id() -> str:
    """Return a short id such as ``token_3f9a2c1d``, which may be shown anywhere."""
    return f"token_{secrets.token_hex(_ID_BYTES)}"


def hash_token(token: str) -> bytes:
    """Return the token's SHA-256 digest: all that is ever stored of it."""
    return hashlib.sha256(token.encode()).digest()


def webhook_url(public_url: str, token: str) -> str:
    """Return the URL that Customer.io calls; it is a secret."""
    return f"{public_url}/v1/webhooks/{token}"
