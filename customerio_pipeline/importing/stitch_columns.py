"""From the columns of Stitch's table back to the keys of an event (stitch-loading 2 to 5).

Names are split at ``__``, which joined the keys of nested objects (4.1). Columns that a change of
type split (``x__bi``, ``x__st``; 5.4 to 5.6) are one key again, whichever warehouse split them.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from customerio_pipeline.loading.declared import DECLARED_TYPES
from customerio_pipeline.loading.names import SEPARATOR
from customerio_pipeline.loading.target import ColumnType

SEQUENCE = "_sdc_sequence"
RECEIVED_AT = "_sdc_received_at"
BATCHED_AT = "_sdc_batched_at"
EVENT_ID = "event_id"

Convert = Callable[[object], object]
"""Makes the value of a column that of a key."""

_SYSTEM = ("_sdc_", "_rjm_")

# As stitch-loading 5.5 has them, with Redshift's long forms.
_SUFFIX_TYPES = {
    **dict.fromkeys(("bi", "it", "lg", "bigint"), ColumnType.BIGINT),
    **dict.fromkeys(("do", "fl", "db", "de", "nu", "double"), ColumnType.DOUBLE),
    **dict.fromkeys(("bo", "bl", "boolean"), ColumnType.BOOLEAN),
    **dict.fromkeys(("st", "string", "ti", "dt", "inst"), ColumnType.TEXT),
    **dict.fromkeys(("va", "re", "ar", "js"), ColumnType.JSON),
}
_NEVER_KEYS = frozenset({"bi", "bo", "de", "do", "it", "st", "ti"})
"""Stitch on PostgreSQL lets no key end so; another suffix may be a key where nothing is beside."""

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,18})")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_BOOLEANS = {"t": True, "true": True, "f": False, "false": False}


class Place(NamedTuple):
    """Where a column's values go."""

    path: tuple[str, ...]
    type: ColumnType | None
    """What they are, where the name tells; None where it does not."""


def places(columns: Sequence[str]) -> dict[str, Place]:
    """Return where the values of each column go; those of the loader have no place.

    The shortest paths first, for `nested`.
    """
    events = [name for name in columns if not name.lower().startswith(_SYSTEM)]
    found = {name: _place(name, events) for name in events}
    return dict(sorted(found.items(), key=lambda item: len(item[1].path)))


def nested(values: Mapping[str, object], where: Mapping[str, Place]) -> dict[str, object]:
    """Return the event of a row; nulls are left out.

    A value whose place is taken by another one of the row keeps the name of its column.
    """
    event: dict[str, object] = {}
    for name, place in where.items():
        value = values[name]
        if value is not None and not _put(event, place.path, value):
            event[name] = value
    return event


def converter(place: Place) -> Convert | None:
    """Return how JSON text of a typed column is read; None where values stay what they are."""
    is_json = place.type is ColumnType.JSON or DECLARED_TYPES.get(place.path) is ColumnType.JSON
    # Where nested data is kept in one column (stitch-loading 4.17), this is an object.
    return _json if is_json or place.path == ("data",) else None


def text_converter(place: Place, inferred: ColumnType) -> Convert:
    """Return how the text of a CSV file is read.

    Args:
        place: of the column; a documented field, or a split column, has a known type.
        inferred: what all texts of the column look like.
    """
    if place.path == ("data",):
        return _json
    return _READERS[place.type or DECLARED_TYPES.get(place.path) or inferred]


def looks_like(texts: set[str]) -> set[ColumnType]:
    """Return the types that all these texts could have, other than text."""
    patterns: dict[ColumnType, Callable[[str], object]] = {
        ColumnType.BIGINT: _INTEGER.fullmatch,
        ColumnType.DOUBLE: _NUMBER.fullmatch,
        ColumnType.BOOLEAN: _BOOLEANS.__contains__,
    }
    return {kind for kind, fits in patterns.items() if all(map(fits, texts))}


def _place(name: str, columns: Sequence[str]) -> Place:
    base, _, suffix = name.rpartition(SEPARATOR)
    kind = _SUFFIX_TYPES.get(suffix)
    if base and kind is not None:
        family, is_object = 0, False
        for other in columns:
            rest = other.removeprefix(base + SEPARATOR)
            if other == base or (rest != other and rest in _SUFFIX_TYPES):
                family += 1
            elif rest != other:
                is_object = True
        # One key may be an object in one event and of two other types in others (4.13). A
        # documented field is none, so the object was the mistake.
        is_split = family > 1 or _path(base) in DECLARED_TYPES
        if is_split or (suffix in _NEVER_KEYS and not is_object):
            return Place(_path(base), kind)
    return Place(_path(name), None)


def _path(name: str) -> tuple[str, ...]:
    keys = tuple(name.split(SEPARATOR))
    return keys if all(keys) else (name,)


def _put(event: dict[str, object], path: tuple[str, ...], value: object) -> bool:
    """Put a value at its place; False when there is something already."""
    place = event
    for key in path[:-1]:
        inner = place.setdefault(key, {})
        if not isinstance(inner, dict):
            return False
        place = inner
    if path[-1] in place:
        return False
    place[path[-1]] = value
    return True


def _json(value: object) -> object:
    """Return JSON text as the JSON that it is, digit for digit; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return msgspec.Raw(value.encode())


def _integer(value: object) -> object:
    if not isinstance(value, str) or not _INTEGER.fullmatch(value):
        return value
    number = int(value)
    return number if -(2**63) <= number < 2**63 else value


def _double(value: object) -> object:
    """Return a double; warehouses print 16.0 as 16, which would be an integer."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        return value
    number = float(value)
    return number if math.isfinite(number) else value


def _boolean(value: object) -> object:
    return _BOOLEANS.get(value.lower(), value) if isinstance(value, str) else value


def _as_it_is(value: object) -> object:
    return value


_READERS: dict[ColumnType, Convert] = {
    ColumnType.BIGINT: _integer,
    ColumnType.DOUBLE: _double,
    ColumnType.BOOLEAN: _boolean,
    ColumnType.JSON: _json,
    ColumnType.TEXT: _as_it_is,
    ColumnType.TIMESTAMP: _as_it_is,
}
