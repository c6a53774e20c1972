"""Slots that are copies: a spool that comes out of a backup is sealed, but never gone on with.

Offsets name deliveries for ever (design C1). The original of a copy went on counting after it was
made, so a worker that went on where the copy ends would give the same offsets to other deliveries,
and loading would take those for loaded ones. So a slot notes which file its lock is. A copy's lock
is another file, and such a slot is renamed to ``copied-…``: new writers begin, and the sealer lands
what the landing folder does not have of it.
"""

import os
import secrets
from pathlib import Path

import structlog

from customerio_pipeline.landing.folders import sync_folder

LOCK = "lock"
_IDENTITY = "identity"
_PREFIX = "copied-"
_OWNER_ONLY = 0o600

log = structlog.get_logger()


def note_identity(folder: Path) -> None:
    """Note which file the slot's lock is, durably, unless that is noted already.

    Raises:
        OSError: it cannot be written.
    """
    identity = _identity(folder)
    path = folder / _IDENTITY
    if _noted(folder) == identity:
        return
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _OWNER_ONLY)
    try:
        os.write(descriptor, identity)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(folder)


def is_copied(folder: Path) -> bool:
    """Tell whether the slot was made elsewhere, or by a release that did not note it."""
    return _noted(folder) != _identity(folder)


def set_aside(folder: Path) -> None:
    """Rename a slot that the caller has locked, so that no worker goes on with it.

    Raises:
        OSError: it is where it was.
    """
    aside = folder.with_name(f"{_PREFIX}{folder.name}-{secrets.token_hex(5)}")
    folder.rename(aside)
    sync_folder(folder.parent)
    log.warning(
        "spool_copied",
        path=str(aside),
        reason="it is a copy, or of an earlier release; what it holds is sealed, and new writers"
        " begin at offset 0",
    )


def copied_folders(spool: Path) -> list[Path]:
    """Return the slots that were set aside."""
    try:
        return sorted(path for path in spool.iterdir() if path.name.startswith(_PREFIX))
    except FileNotFoundError:
        return []


def remove_sealed(folder: Path) -> None:
    """Remove a slot that was set aside and is sealed; damaged segments stay, for a person."""
    if any(folder.glob("*.damaged")):
        return
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _identity(folder: Path) -> bytes:
    """Return what no copy shares: nothing sets the time of a file's last change of status."""
    status = (folder / LOCK).stat()
    return f"{status.st_ino} {status.st_ctime_ns}".encode()


def _noted(folder: Path) -> bytes | None:
    try:
        return (folder / _IDENTITY).read_bytes()
    except FileNotFoundError:
        return None
