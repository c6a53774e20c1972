"""Opening a DuckDB file that other processes use too, for as short a time as possible."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from customerio_pipeline.errors import WarehouseBusyError, WarehouseUnavailableError

CATALOG = "customerio-pipeline"
"""Name under which the file is attached: one that no schema can have."""

ALIAS = f'"{CATALOG}"'
"""The same, quoted."""

ENGINE_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False  # nothing is fetched from anywhere
}

_HOLDER = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
_FIRST_RETRY_SECONDS = 0.01
_LAST_RETRY_SECONDS = 0.25


@contextmanager
def attached(
    connection: duckdb.DuckDBPyConnection, file: Path, *, read_only: bool, wait_seconds: float
) -> Iterator[None]:
    """Attach `file` as `ALIAS` for the time of the block, waiting while others hold it.

    Only one process can have a DuckDB file open for writing, and then no other can read it.

    Raises:
        WarehouseBusyError: it is still held after `wait_seconds`; names the process.
        WarehouseUnavailableError: it cannot be opened at all.
    """
    options = " (READ_ONLY)" if read_only else ""
    path = str(file).replace("'", "''")
    deadline = time.monotonic() + wait_seconds
    pause = _FIRST_RETRY_SECONDS
    while True:
        try:
            connection.execute(f"ATTACH '{path}' AS {ALIAS}{options}")
            break
        except duckdb.Error as error:
            holder = _HOLDER.search(str(error))
            if holder is None:
                raise unavailable(file, error) from error
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"The warehouse {file} is held by process {holder['pid']}"
                    f" ({holder['program']}); close it there, the next load goes on from here."
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY_SECONDS)
    try:
        yield
    finally:
        connection.execute(f"DETACH {ALIAS}")


def unavailable(file: Path, error: Exception) -> WarehouseUnavailableError:
    """Return the sentence for a file that cannot be opened."""
    reason = str(error).splitlines()[0].removeprefix("IO Error: ").rstrip(".")
    return WarehouseUnavailableError(f"The warehouse {file} cannot be opened: {reason}.")
