"""The read copy of a DuckDB file: for those who keep it open, and while loads hold the file.

A copy never changes: the next one takes its name, and whoever has the old one open keeps it.
"""

import errno
import fcntl
import logging
import os
import shutil
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import duckdb

from customerio_pipeline.errors import WarehouseBusyError, WarehouseError
from customerio_pipeline.warehouse.duckdb_errors import reason
from customerio_pipeline.warehouse.duckdb_file import (
    ENGINE_CONFIG,
    attached,
    file_lock,
    sync,
    write_ahead_log,
)

_CHUNK_BYTES = 64 * 1024 * 1024
_LOCK_POLL_SECONDS = 0.05

_IN_PASSING_SECONDS = 0.5
"""How long a publication between two batches waits for others; the next one comes soon."""

_AT_THE_END_SECONDS = 5.0

_TICK_NS = 20_000_000
"""Times of files are so coarse that a write in the same tick as the copy would not show."""

_CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
"""What `copy_file_range` says where the file system has no such thing."""

_log = logging.getLogger(__name__)


def copy_of(file: Path) -> Path:
    """Return where the read copy of `file` is: ``customerio-read.duckdb``."""
    return file.with_name(f"{file.stem}-read{file.suffix}")


def copied_at(file: Path) -> datetime | None:
    """Return when the read copy of `file` was made; None when there is none."""
    try:
        return datetime.fromtimestamp(copy_of(file).stat().st_ctime, UTC)
    except FileNotFoundError:
        return None


def publish(file: Path, every_seconds: float, *, force: bool, wait_seconds: float) -> None:
    """Make the read copy current, unless it is, or is younger than `every_seconds`.

    Whatever goes wrong is logged and left to the next publication: the load is done.

    Args:
        file: the warehouse; nobody in this process has it open.
        every_seconds: least time between two copies; 0 makes none.
        force: publish a younger one, too.
        wait_seconds: how long to wait, at most, for others who use the file.
    """
    if not every_seconds:
        return
    least_seconds = 0 if force else every_seconds
    wait_seconds = min(wait_seconds, _AT_THE_END_SECONDS if force else _IN_PASSING_SECONDS)
    try:
        if not _is_due(file, least_seconds):
            return
        with file_lock(file, wait_seconds):
            # The holder of the lock before us may have published.
            if _is_due(file, least_seconds):
                _publish(file, wait_seconds)
    except WarehouseBusyError as error:
        if force:
            _log.warning("The read copy of %s stays as it is: %s", file, error)
    except (OSError, WarehouseError) as error:
        _log.warning(
            "The read copy of %s cannot be made now: %s. The next load tries again.",
            file,
            str(error).rstrip(".") if isinstance(error, WarehouseError) else reason(error),
        )


def _is_due(file: Path, every_seconds: float) -> bool:
    try:
        source, copy = file.stat(), copy_of(file).stat()
    except FileNotFoundError:
        return file.exists()
    if _stamp(source) == _stamp(copy) and not write_ahead_log(file).exists():
        return False
    age = time.time() - copy.st_ctime
    return not 0 <= age < every_seconds


def _stamp(status: os.stat_result) -> tuple[int, int]:
    """Return what a copy has in common with its source: the copy gets its source's time."""
    return status.st_mtime_ns, status.st_size


def _publish(file: Path, wait_seconds: float) -> None:
    copy = copy_of(file)
    unfinished = copy.with_name(f".{copy.name}.new")
    try:
        _copy(file, unfinished, wait_seconds)
        # Of somebody who opened the copy for writing; it would not fit the next one.
        write_ahead_log(copy).unlink(missing_ok=True)
        unfinished.rename(copy)
        sync(copy.parent)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _copy(file: Path, unfinished: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    unfinished.unlink(missing_ok=True)  # of a process that was killed
    with unfinished.open("xb") as target:
        while True:
            if write_ahead_log(file).exists():
                _move_log_into(file, wait_seconds)
            with file.open("rb") as source:
                # The lock of DuckDB's readers: they get in, writers wait. Closing the file frees
                # every lock of this process on it, hence the condition of `publish`.
                _lock(source.fileno(), file, deadline)
                if not write_ahead_log(file).exists():
                    status = _settled(source.fileno())
                    _copy_bytes(source, target, status.st_size)
                    break
        os.fchmod(target.fileno(), status.st_mode & 0o444)
        os.utime(target.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(target.fileno())


def _move_log_into(file: Path, wait_seconds: float) -> None:
    with (
        closing(duckdb.connect(config=ENGINE_CONFIG)) as engine,
        attached(engine, file, read_only=False, wait_seconds=wait_seconds),
    ):
        pass  # DuckDB does it when the file is closed
    if write_ahead_log(file).exists():
        raise WarehouseBusyError(f"The write-ahead log of {file} cannot be moved into it now.")


def _lock(descriptor: int, file: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise WarehouseBusyError(f"The warehouse {file} is held for writing.") from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _settled(descriptor: int) -> os.stat_result:
    """Return the status of a locked file whose time is past."""
    status = os.fstat(descriptor)
    age = time.time_ns() - status.st_mtime_ns
    if 0 <= age < _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)
    return status


def _copy_bytes(source: BinaryIO, target: BinaryIO, size: int) -> None:
    """Copy, within the kernel where it can: some file systems then share the blocks."""
    copied = _copy_in_kernel(source.fileno(), target.fileno(), size)
    if copied < size:
        source.seek(copied)
        target.seek(copied)
        shutil.copyfileobj(source, target, _CHUNK_BYTES)
        target.flush()


def _copy_in_kernel(source: int, target: int, size: int) -> int:
    """Return how many bytes were copied; less than `size` where the file system cannot."""
    copied = 0
    if not hasattr(os, "copy_file_range"):
        return copied
    try:
        while copied < size:
            moved = os.copy_file_range(source, target, min(_CHUNK_BYTES, size - copied))
            if not moved:
                break
            copied += moved
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return copied
