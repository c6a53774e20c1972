"""Opening a DuckDB file that other processes use too, for as short a time as possible."""

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from customerio_pipeline.errors import (
    WarehouseBusyError,
    WarehouseDamagedError,
    WarehouseError,
    WarehouseUnavailableError,
)
from customerio_pipeline.warehouse.duckdb_errors import is_damage, reason

CATALOG = "customerio-pipeline"
"""Name under which the file is attached: one that no schema can have."""

ALIAS = f'"{CATALOG}"'
"""The same, quoted."""

ENGINE_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False  # nothing is fetched from anywhere
}

_HOLDER = re.compile(r"Conflicting lock is held in (?P<program>.*?) \(PID (?P<pid>\d+)\)")
_OWN_HOLDER = "Unique file handle conflict"
_FIRST_RETRY_SECONDS = 0.01
_LAST_RETRY_SECONDS = 0.25
_LOCK_POLL_SECONDS = 0.02
_URL_PREFIX = "duckdb:///"

_log = logging.getLogger(__name__)


def file_of(url: str) -> Path:
    """Return the file of ``duckdb:///path``; a relative path starts at the working folder."""
    return Path(url.removeprefix(_URL_PREFIX)).absolute()


@contextmanager
def attached(
    connection: duckdb.DuckDBPyConnection, file: Path, *, read_only: bool, wait_seconds: float
) -> Iterator[None]:
    """Attach `file` as `ALIAS` for the time of the block, waiting while others hold it.

    Only one process can have a DuckDB file open for writing, and then no other can read it.

    Raises:
        WarehouseBusyError: it is still held after `wait_seconds`; names the process.
        WarehouseDamagedError: what it holds is not what was written.
        WarehouseUnavailableError: it cannot be opened for another reason.
    """
    _attach(connection, file, read_only=read_only, wait_seconds=wait_seconds)
    try:
        yield
    except BaseException:
        with suppress(duckdb.Error):  # which would hide what went wrong
            connection.execute(f"DETACH {ALIAS}")
        raise
    try:
        connection.execute(f"DETACH {ALIAS}")
    except duckdb.Error as error:
        if is_damage(error):
            raise damaged(file, error) from error
        # Committed is committed: it is in the write-ahead log, and read from there.
        _log.warning(
            "The write-ahead log of the warehouse %s could not be moved into it: %s; nothing is"
            " lost, the next load tries again.",
            file,
            reason(error),
        )


@contextmanager
def locked(lock_file: Path, wait_seconds: float, complaint: str) -> Iterator[None]:
    """Hold a lock that the kernel frees when its owner dies.

    Raises:
        WarehouseBusyError: it is held by another after `wait_seconds`; says `complaint`.
        OSError: the lock file cannot be made.
    """
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise WarehouseBusyError(complaint) from None
                time.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(file: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the lock under which the file as a whole is made, copied or set aside.

    Raises:
        WarehouseBusyError: another process is at it.
        OSError: the lock file cannot be made.
    """
    complaint = (
        f"The warehouse {file} is being copied or made again by another process; the next load"
        " goes on from here."
    )
    with locked(file.with_name(f".{file.name}.lock"), wait_seconds, complaint):
        yield


def write_ahead_log(file: Path) -> Path:
    """Return where DuckDB keeps what is committed and not yet in `file`."""
    return file.with_name(f"{file.name}.wal")


def create(file: Path, wait_seconds: float) -> None:
    """Make an empty database where there is none.

    It gets its name when it is whole, so that a crash or a full disk leaves nothing that looks
    like a damaged warehouse.

    Raises:
        WarehouseUnavailableError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.new")
    try:
        with file_lock(file, wait_seconds):
            if file.exists():
                return
            for left in (unfinished, write_ahead_log(unfinished)):
                left.unlink(missing_ok=True)
            # Of a file that somebody deleted; DuckDB would not open another with it.
            write_ahead_log(file).unlink(missing_ok=True)
            duckdb.connect(unfinished, config=ENGINE_CONFIG).close()
            sync(unfinished)
            unfinished.rename(file)
            sync(file.parent)
    except (OSError, duckdb.Error) as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise unavailable(file, error) from error


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unavailable(file: Path, error: Exception) -> WarehouseUnavailableError:
    """Return the sentence for a file that cannot be opened."""
    return WarehouseUnavailableError(f"The warehouse {file} cannot be opened: {reason(error)}.")


def damaged(file: Path, error: Exception) -> WarehouseDamagedError:
    """Return the sentence for a file that does not hold what was written."""
    return WarehouseDamagedError(
        f"The warehouse {file} is damaged ({reason(error)}); the next load sets it aside and"
        " makes it again from landing."
    )


def error_of_use(file: Path, error: duckdb.Error) -> WarehouseError:
    """Return the sentence for an error that a statement of ours met in an opened file."""
    if is_damage(error):
        return damaged(file, error)
    return WarehouseError(f"The warehouse {file} cannot be used: {reason(error)}.")


def _attach(
    connection: duckdb.DuckDBPyConnection, file: Path, *, read_only: bool, wait_seconds: float
) -> None:
    options = " (READ_ONLY)" if read_only else ""
    path = str(file).replace("'", "''")
    deadline = time.monotonic() + wait_seconds
    pause = _FIRST_RETRY_SECONDS
    while True:
        try:
            connection.execute(f"ATTACH '{path}' AS {ALIAS}{options}")
        except duckdb.Error as error:
            holder = _holder(str(error))
            if holder is None:
                found = damaged if is_damage(error) else unavailable
                raise found(file, error) from error
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"The warehouse {file} is held by {holder}; close it there, the next load"
                    " goes on from here."
                ) from error
            time.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY_SECONDS)
        else:
            return


def _holder(text: str) -> str | None:
    """Name who holds the file, if that is what the error is about."""
    found = _HOLDER.search(text)
    if found is not None:
        return f"process {found['pid']} ({found['program']})"
    return "another thread of this process" if _OWN_HOLDER in text else None
