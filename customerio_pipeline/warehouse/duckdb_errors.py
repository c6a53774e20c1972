"""What an error of DuckDB means: damage, trouble of the machine, or a statement at fault.

DuckDB has no codes for these: the class of the exception and the text decide. Both were taken
from real cases of DuckDB 2.0; `tests/test_duckdb_damage.py` makes each of them again.
"""

import re

import duckdb

_KINDS_OF_DAMAGE = (
    duckdb.IOException,
    duckdb.SerializationException,
    duckdb.InternalException,
    duckdb.FatalException,
    duckdb.TransactionException,  # a commit that failed, for one of these reasons
)
# "Corrupt database file" comes as the base class itself. Any other class may quote values.

_DAMAGE = re.compile(
    r"corrupt"
    r"|not a valid DuckDB database file"
    r"|Could not read enough bytes"
    r"|No more data remaining"
    r"|Failed to deserialize"
    r"|Failure while replaying WAL"
    r"|WAL does not match",
    re.IGNORECASE,
)

_MACHINE = re.compile(
    r"No space left on device|Disk quota exceeded|File too large"
    r"|Input/output error|fsync failed|Stale file handle|Connection timed out"
    r"|Permission denied|Operation not permitted|Read-only file system|Is a directory"
    r"|Too many open files|Cannot allocate memory|Out of Memory|failed to allocate"
    r"|Conflicting lock|Unique file handle|already attached"
    r"|newer version of DuckDB|older development version|compiled vector size"
    r"|Extension \"[^\"]*\" not found|Operation not supported|database does not exist",
    re.IGNORECASE,
)
"""Never damage, whatever else the text says: another file would not help, or would be lost."""

_PREFIX = re.compile(r"^(?:(?:[A-Z][\w ]*? Error|Failed to commit): )+")


def is_damage(error: Exception) -> bool:
    """Tell whether the file that was opened or used does not hold what was written."""
    if type(error) is not duckdb.Error and not isinstance(error, _KINDS_OF_DAMAGE):
        return False
    text = str(error)
    if _MACHINE.search(text):
        return False
    return bool(_DAMAGE.search(text)) or is_internal(error)


def is_internal(error: Exception) -> bool:
    """Tell whether DuckDB met what it holds for impossible."""
    return isinstance(error, duckdb.InternalException | duckdb.FatalException) and not (
        _MACHINE.search(str(error))
    )


def reason(error: Exception) -> str:
    """Return what happened as a part of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = [line.strip() for line in str(error).splitlines()]
    original = next((line for line in lines if "Original error: " in line), "")
    first = original.partition("Original error: ")[2].strip('"') or lines[0]
    return _PREFIX.sub("", first).rstrip(".! ")
