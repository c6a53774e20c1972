"""Patterns of rules on fields: globs over the names of columns."""

import re
import unicodedata

from customerio_pipeline.errors import RegistryError
from customerio_pipeline.registry.records import FieldAction

MAX_PATTERN_LENGTH = 200

_CLASS = re.compile(r"\[!?[^\[\]]+\]")
_WILDCARDS = frozenset("*?")
_TYPE_SUFFIX = re.compile(r"__(?:bi|do|bo|st|js)$")
_KEY = "event_id"
_OWN_PREFIX = "_sdc"


def pattern_key(pattern: str) -> str:
    """Return what equal patterns have in common: no two columns differ by case alone."""
    return pattern.lower()


def check_pattern(pattern: str, action: FieldAction) -> str:
    """Return the pattern without white space around it.

    ``*`` stands for any characters, ``?`` for one, ``[ab]`` for one of these, ``[!ab]`` for
    another one.

    Raises:
        RegistryError: it can match no column, or those that every row needs as they are.
    """
    pattern = pattern.strip()
    if not pattern:
        raise RegistryError(
            "The pattern is empty: name a column such as data__recipient, or use wildcards as in"
            " *email*."
        )
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise RegistryError(
            f"The pattern has {len(pattern)} characters: at most {MAX_PATTERN_LENGTH} are allowed."
        )
    plain = _CLASS.sub("", pattern)
    if "[" in plain or "]" in plain:
        raise RegistryError(
            f'"{pattern}" has a bracket without its other one: [ab] stands for one of these'
            " characters."
        )
    if not all(map(_can_be_in_name, plain)):
        raise RegistryError(
            f'"{pattern}" can match no column: their names hold letters, digits, _ and spaces. The'
            ' "recipient" in "data" is the column data__recipient.'
        )
    if suffix := _TYPE_SUFFIX.search(pattern_key(pattern)):
        raise RegistryError(
            f'"{pattern}" names values of one type: rules hold for a column with all its types, so'
            f" leave out the {suffix[0]}."
        )
    if action is not FieldAction.KEEP:
        _check_is_not_needed(pattern)
    return pattern


def _check_is_not_needed(pattern: str) -> None:
    key = pattern_key(pattern)
    if key == _KEY:
        raise RegistryError(
            "event_id is the key of the table: it can be neither dropped nor hashed."
        )
    if key.startswith(_OWN_PREFIX):
        raise RegistryError(
            f'"{pattern}" names columns of the pipeline\'s own: those that begin with _sdc can be'
            " neither dropped nor hashed."
        )


def _can_be_in_name(character: str) -> bool:
    return (
        character in _WILDCARDS
        or character in "_ "
        or character.isalnum()
        or unicodedata.category(character).startswith("M")
    )
