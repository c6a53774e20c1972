"""Column names: from the path of JSON keys to a name that every warehouse takes.

Stitch's rules as decided in stitch-loading 0.1 (2.6-2.12). The same for every warehouse, so that
moving between them changes nothing; a name is therefore limited by PostgreSQL's 63 bytes and
unique regardless of case, as DuckDB demands.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Sequence

SEPARATOR = "__"
MAX_NAME_BYTES = 59
"""PostgreSQL's 63 less four for a type suffix such as ``__bi`` (stitch-loading 2.10)."""

_HASH_DIGITS = 8
_RESERVED_PREFIXES = ("_sdc", "_rjm")
_RESERVED_SUFFIXES = ("__bi", "__bo", "__de", "__do", "__it", "__st", "__ti", "__js")


def full_name(path: Sequence[str]) -> str:
    """Return the column name of a path of JSON keys, however long."""
    name = SEPARATOR.join(_canonical(key) for key in path)
    folded = name.lower()
    if folded.startswith(_RESERVED_PREFIXES) or folded.endswith(_RESERVED_SUFFIXES):
        return f"{name}_"
    return name


def unique_name(name: str, taken: Collection[str]) -> str:
    """Return `name`, cut to length and numbered ``__2``, ``__3``… where that is taken.

    `taken` holds lower-case names.
    """
    candidate = _cut(name, MAX_NAME_BYTES)
    number = 2
    while candidate.lower() in taken:
        suffix = f"{SEPARATOR}{number}"
        candidate = _cut(name, MAX_NAME_BYTES - len(suffix)) + suffix
        number += 1
    return candidate


def _canonical(key: str) -> str:
    """Keep letters, digits, ``_`` and spaces; everything else becomes ``_`` (0.1)."""
    if key.isascii() and key.isidentifier():
        return key
    return "".join(c if c in "_ " or c.isalnum() or _is_mark(c) else "_" for c in key) or "_"


def _is_mark(character: str) -> bool:
    # Vowel signs and accents that stand alone: without them many scripts are unreadable.
    return unicodedata.category(character).startswith("M")


def _cut(name: str, limit: int) -> str:
    encoded = name.encode()
    if len(encoded) <= limit:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:_HASH_DIGITS]
    return encoded[: limit - _HASH_DIGITS].decode(errors="ignore") + digest
