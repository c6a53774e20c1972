"""Display names of integrations and API tokens: what people read; unique whatever their case."""

import unicodedata

from customerio_pipeline.errors import RegistryError

MAX_NAME_LENGTH = 100

# Controls, halves of surrogate pairs, and line and paragraph separators.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# They reorder the text around them, so that a name could pass for another.
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: str) -> str:
    """Return the display name without surrounding white space.

    Raises:
        RegistryError: it is empty, longer than 100 characters, or has control characters.
    """
    if any(
        character in _BIDI_CONTROLS or unicodedata.category(character) in _REFUSED_CATEGORIES
        for character in name
    ):
        raise RegistryError("The name holds a control character: use visible text only.")
    trimmed = name.strip()
    if not trimmed:
        raise RegistryError("The name is empty: give one to be found by.")
    if len(trimmed) > MAX_NAME_LENGTH:
        raise RegistryError(
            f"The name has {len(trimmed)} characters: at most {MAX_NAME_LENGTH} are allowed."
        )
    return trimmed


def name_key(name: str) -> str:
    """Return what two names have in common that people take for the same."""
    return unicodedata.normalize("NFKC", name.strip()).casefold()
