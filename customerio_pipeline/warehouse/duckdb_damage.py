"""A damaged DuckDB file: confirmed, set aside under a new name, to be made again from landing.

Readers leave a note of what they met; only a load that holds its lock changes anything, and only
after it has met the damage itself.
"""

import fcntl
import logging
import os
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from customerio_pipeline.errors import (
    WarehouseBusyError,
    WarehouseDamagedError,
)
from customerio_pipeline.warehouse.duckdb_errors import is_internal, reason
from customerio_pipeline.warehouse.duckdb_file import (
    ALIAS,
    CATALOG,
    ENGINE_CONFIG,
    attached,
    error_of_use,
    file_lock,
    sync,
    unavailable,
    write_ahead_log,
)
from customerio_pipeline.warehouse.duckdb_tables import quoted

_INTERNAL_ERROR_SECONDS = 24 * 3600
"""An internal error of DuckDB counts as damage once in this time: it may be the batch's fault, and
then making the warehouse again does not help."""

_LOCK_POLL_SECONDS = 0.05

_log = logging.getLogger(__name__)


def note_suspicion(file: Path) -> None:
    """Tell the next load that `file` is to be looked at; where that cannot be written, do not."""
    with suppress(OSError):
        _note(file).write_text(str(file.stat().st_ino))


def suspected_inode(file: Path) -> int | None:
    """Return the inode of the file in which a reader met damage, if it is the one there now."""
    try:
        noted, inode = _note(file).read_text(), file.stat().st_ino
    except OSError:
        return None
    return inode if noted == str(inode) else None


def replace_if_damaged(
    file: Path, inode: int, cause: Exception | None, wait_seconds: float
) -> bool:
    """Set `file` aside if it is damaged; tell whether the file with `inode` is out of the way.

    The caller holds a load lock.

    Args:
        file: the warehouse; the caller does not have it open.
        inode: of the file that the caller had open.
        cause: the damage that the caller met; None for a reader's suspicion, which is checked.
        wait_seconds: how long to wait for others who have it open.

    Raises:
        WarehouseBusyError: it is held by another process.
        WarehouseUnavailableError: it cannot be read or renamed, for another reason than damage.
    """
    try:
        with file_lock(file, wait_seconds):
            if not file.exists() or file.stat().st_ino != inode:
                return True  # somebody else has done it
            found = _damage(file, cause, wait_seconds)
            aside = _set_aside(file, wait_seconds) if found else None
            _note(file).unlink(missing_ok=True)
    except OSError as error:
        raise unavailable(file, error) from error
    if aside is None:
        return False
    _log.warning(
        "The warehouse %s is damaged (%s). It is set aside as %s, and made again from landing by"
        " the next load of each integration. Delete it when nobody wants to look at it.",
        file,
        found,
        aside,
    )
    return True


def _damage(file: Path, cause: Exception | None, wait_seconds: float) -> str | None:
    """Return what is wrong, or None."""
    if cause is not None and not (is_internal(cause) and _was_set_aside_lately(file)):
        return reason(cause)
    try:
        _read_everything(file, wait_seconds)
    except WarehouseDamagedError as error:
        return reason(error.__cause__ if isinstance(error.__cause__, duckdb.Error) else error)
    return None


def _read_everything(file: Path, wait_seconds: float) -> None:
    """Read every value of every table, and move the write-ahead log into the file.

    Raises:
        WarehouseDamagedError: something cannot be read.
        WarehouseError: for another reason than damage.
    """
    # An engine of its own: one that has met an internal error takes no more statements.
    with closing(duckdb.connect(config=ENGINE_CONFIG)) as engine:
        try:
            with attached(engine, file, read_only=False, wait_seconds=wait_seconds):
                tables = engine.execute(
                    "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?",
                    [CATALOG],
                ).fetchall()
                for schema, table in tables:
                    name = f"{ALIAS}.{quoted(schema)}.{quoted(table)}"
                    engine.execute(f"SELECT bit_xor(hash(row)) FROM {name} AS row").fetchall()
        except duckdb.Error as error:
            raise error_of_use(file, error) from error


def _set_aside(file: Path, wait_seconds: float) -> Path:
    """Rename the file and its write-ahead log, while nobody has it open.

    Raises:
        WarehouseBusyError: somebody has, for longer than `wait_seconds`.
        OSError: it cannot be renamed.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        _lock_as_duckdb(descriptor, file, wait_seconds)
        aside = _free_name(file)
        # The log first: alone it would belong to no file.
        with suppress(FileNotFoundError):
            write_ahead_log(file).rename(write_ahead_log(aside))
        file.rename(aside)
        sync(file.parent)
    finally:
        os.close(descriptor)
    return aside


def _lock_as_duckdb(descriptor: int, file: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"The warehouse {file} is damaged, and held by another process; the next load"
                    " sets it aside and makes it again from landing."
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _free_name(file: Path) -> Path:
    now = datetime.now(UTC)
    while True:
        aside = file.with_name(f"{file.name}.damaged-{now:%Y%m%dT%H%M%SZ}")
        if not aside.exists() and not write_ahead_log(aside).exists():
            return aside
        now = datetime.fromtimestamp(now.timestamp() + 1, UTC)


def _was_set_aside_lately(file: Path) -> bool:
    latest = time.time() - _INTERNAL_ERROR_SECONDS
    found = file.parent.glob(f"{file.name}.damaged-*")
    return any(path.stat().st_ctime > latest for path in found)  # of its renaming


def _note(file: Path) -> Path:
    return file.with_name(f".{file.name}.suspected")
