"""Masking: which columns' values are dropped, and which are replaced by a keyed hash.

Rules are over the names that columns have by their place in the event, before names are numbered
or split by type, so that the table stays a function of landing and the rules (design C5).
"""

import fnmatch
import hmac
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Self

import msgspec
import pyarrow as pa

from customerio_pipeline.loading.names import full_name, unique_name
from customerio_pipeline.loading.target import ELEMENT
from customerio_pipeline.registry.records import FieldAction, FieldPolicy

_NEVER = frozenset({("event_id",)})
"""Paths that no rule reaches."""

_REJECTED = "hmac-sha256:"


class Masking:
    """The rules of an integration, as one load follows them."""

    def __init__(
        self,
        rules: Iterable[tuple[str, FieldAction]] = (),
        secret: str | None = None,
        changed_at: datetime | None = None,
    ) -> None:
        """Begin with rules.

        Args:
            rules: globs over names of columns, and what becomes of them; the first match counts.
            secret: key of the hashes, in hexadecimal digits; there must be one unless all is kept.
            changed_at: when the rules last changed.
        """
        self._rules = tuple(rules)
        self._key = bytes.fromhex(secret or "")
        self.changed_at = changed_at
        self.is_at_work = any(action is not FieldAction.KEEP for _, action in self._rules)
        """Whether anything is dropped or hashed."""

        if self.is_at_work and not self._key:
            raise ValueError("rules that hash need a key")
        self._matches = [
            (re.compile(fnmatch.translate(pattern.lower())).match, action)
            for pattern, action in self._rules
        ]

    @classmethod
    def of_policy(cls, policy: FieldPolicy) -> Self:
        """Return what an integration's rules come to."""
        rules = ((rule.pattern, rule.action) for rule in policy.rules)
        return cls(rules, policy.secret, policy.changed_at)

    def __eq__(self, other: object) -> bool:
        """Tell whether both do the same."""
        return isinstance(other, Masking) and (self._rules, self._key, self.changed_at) == (
            other._rules,
            other._key,
            other.changed_at,
        )

    def __hash__(self) -> int:
        """Return a number that equal ones have in common."""
        return hash(self._rules)

    def __repr__(self) -> str:
        """Show the rules only: a key in a log or traceback would be leaked."""
        return f"Masking({self._rules!r}, secret=…)"

    def action(self, path: tuple[str, ...], table_path: tuple[str, ...] = ()) -> FieldAction | None:
        """Return what becomes of the values at a path; None: they stay as they are.

        Args:
            path: of JSON keys from the top of the event.
            table_path: where the table's rows are in the event.
        """
        if not self.is_at_work or path in _NEVER:
            return None
        around = [key for key in table_path if key != ELEMENT]
        name = full_name([*around, *path[len(table_path) :]])
        # As the table has it where it is too long, too.
        names = {name.lower(), unique_name(name, ()).lower()}
        for matches, action in self._matches:
            if any(map(matches, names)):
                return None if action is FieldAction.KEEP else action
        return None

    def hashed(self, value: object) -> str:
        """Return the hash of a value: HMAC-SHA256 of its text in UTF-8, 64 hexadecimal digits.

        Equal texts have equal hashes wherever they are, a number's among them. An empty text stays
        empty: it tells of nobody, and all who lack a value would seem to be one.
        """
        text = _text(value)
        return hmac.digest(self._key, text.encode(), "sha256").hex() if text else ""

    def hashed_column(self, values: pa.ChunkedArray, value_type: type) -> pa.ChunkedArray:
        """Return the hashes of a column, `value_type` being what the values are in JSON."""
        return pa.chunked_array(
            [self._hashed_chunk(chunk, value_type) for chunk in values.chunks], pa.string()
        )

    def rejected(self, record: str) -> str:
        """Return what `_sdc_rejected` may have of a record: what is in it nobody can tell."""
        return f"{_REJECTED}{self.hashed(record)}" if self.is_at_work else record

    def _hashed_chunk(self, values: pa.Array, value_type: type) -> pa.Array:
        # Most columns repeat their values.
        encoded = values.dictionary_encode()
        found = encoded.dictionary.to_pylist()
        if value_type is list:
            # As when flattening one by one: of duplicate keys the engine keeps both.
            found = [msgspec.json.encode(msgspec.json.decode(text)).decode() for text in found]
        return pa.array(map(self.hashed, found), pa.string()).take(encoded.indices)


NO_MASKING = Masking()


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    # Zero has two signs, which a column of the engine's does not always tell apart.
    return repr(value + 0.0) if isinstance(value, float) else str(value)
