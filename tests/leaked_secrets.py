"""Whether a text shows a secret of an installation, whoever made the secret.

The registry keeps hashes of tokens, so a text is searched for whatever has one of these hashes:
tokens of webhook URLs, of the API and of sessions, live or revoked. Signing keys are kept as they
are.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

_TOKEN_LENGTH = 43
_MAY_HOLD_TOKENS = re.compile(rf"[A-Za-z0-9_-]{{{_TOKEN_LENGTH},}}")
# Some tests have keys such as "right", which logs may say.
_SHORTEST_KEY = 12
_HASHES = {
    "webhook URL": "registry_webhook_urls",
    "API token": "registry_api_tokens",
    "session": "registry_admin_sessions",
}
_KEYS = "registry_signing_keys"


def leaked_secrets(home: Path, text: str) -> list[str]:
    """Return what kinds of secrets of the installation in `home` the text shows."""
    registry = home / "registry.sqlite"
    if not registry.is_file():
        return []
    with closing(sqlite3.connect(registry)) as connection:
        kinds = {
            digest: kind
            for kind, table in _HASHES.items()
            for digest in _column(connection, table, "token_hash")
        }
        keys = [key for key in _column(connection, _KEYS, "secret") if key is not None]
    leaked = ["signing key" for key in keys if len(key) >= _SHORTEST_KEY and key in text]
    return leaked + [kinds[digest] for digest in _digests(text) if digest in kinds]


def _column(connection: sqlite3.Connection, table: str, name: str) -> list[Any]:
    """Return the column, of a table that a test has not broken."""
    try:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        if (table,) not in tables:
            return []
        return [value for (value,) in connection.execute(f"SELECT {name} FROM {table}")]  # noqa: S608
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return []


def _digests(text: str) -> Iterator[bytes]:
    for found in set(_MAY_HOLD_TOKENS.findall(text)):
        for at in range(len(found) - _TOKEN_LENGTH + 1):
            yield sha256(found[at : at + _TOKEN_LENGTH].encode()).digest()
