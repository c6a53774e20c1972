"""Schema names: derived from an integration's display name, or typed (stitch-loading 2.1, 2.2)."""

import re
import unicodedata

from customerio_pipeline.errors import RegistryError

# PostgreSQL cuts longer names.
MAX_SCHEMA_LENGTH = 63

_ALLOWED = re.compile(r"[a-z0-9_]+")
_DROPPED = re.compile(r"[^a-z0-9_]")
_LETTER_OR_DIGIT = re.compile(r"[a-z0-9]")
_SEPARATORS = str.maketrans(" -", "__")

# Schemas that PostgreSQL or DuckDB own, or that everybody shares there.
_RESERVED = frozenset({"information_schema", "main", "public", "system", "temp"})
_RESERVED_PREFIX = "pg_"


def derive_schema(name: str) -> str:
    """Derive the schema from a display name.

    Lower case, spaces and ``-`` become ``_``, accents are taken off, everything else but ASCII
    letters, digits and ``_`` is dropped (stitch-loading 2.1).

    Raises:
        RegistryError: nothing usable is left, or the result cannot be a schema.
    """
    decomposed = unicodedata.normalize("NFKD", name.strip()).lower()
    schema = _DROPPED.sub("", decomposed.translate(_SEPARATORS))
    if not _LETTER_OR_DIGIT.search(schema):
        raise RegistryError(
            f'No schema name can be derived from "{name}": give the schema, too (--schema), '
            "made of a-z, 0-9 and _."
        )
    return check_schema(schema)


def check_schema(schema: str) -> str:
    """Return `schema` if it can name a schema in every warehouse.

    Raises:
        RegistryError: it has other characters than a-z, 0-9 and _, is too long, or is reserved.
    """
    if not _ALLOWED.fullmatch(schema) or not _LETTER_OR_DIGIT.search(schema):
        raise RegistryError(
            f'"{schema}" cannot be a schema: only a-z, 0-9 and _ are allowed, '
            "with at least one letter or digit."
        )
    if len(schema) > MAX_SCHEMA_LENGTH:
        raise RegistryError(
            f'The schema "{schema}" has {len(schema)} characters and at most {MAX_SCHEMA_LENGTH} '
            "are allowed: choose a shorter one (--schema)."
        )
    if schema in _RESERVED or schema.startswith(_RESERVED_PREFIX):
        raise RegistryError(
            f'The schema "{schema}" belongs to the warehouse itself: choose another.'
        )
    return schema
