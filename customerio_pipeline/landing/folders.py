"""Folders whose entries survive a power cut."""

import ctypes
import os
import shutil
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_REMEMBERED = 4096

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sync_folder(folder: Path) -> None:
    """Make creations, renames and removals in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create `folder` and the missing ones above it, durably.

    Raises:
        OSError: one cannot be created, for example because a file has its name.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def exchange_folders(one: Path, other: Path) -> None:
    """Let two folders of one file system change names, in one step: nobody sees only one of them.

    Raises:
        OSError: neither changed; the system or the file system cannot do it (Linux can, but not on
            every network file system).
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(f"{sys.platform} cannot exchange two folders") from None
    # As Python's own operations on files do, for whoever watches them.
    sys.audit("os.rename", one, other, -1, -1)
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def make_alike(new: Path, model: Path) -> None:
    """Give a file or folder owner, group and permissions of another: the receiver writes there."""
    have, want = new.stat(), model.stat()
    if (have.st_uid, have.st_gid) != (want.st_uid, want.st_gid):
        os.chown(new, want.st_uid, want.st_gid)
    shutil.copymode(model, new)


def sync_entries_once(folder: Path, top: Path) -> None:
    """Make the entries of `folder` and of those above it, up to `top`, durable once a process.

    Whoever created them may have failed, or died, before they were.
    """
    while folder != top:
        _sync_entry(folder)
        folder = folder.parent


@lru_cache(_REMEMBERED)
def _sync_entry(folder: Path) -> None:
    # Who may not read the folder above did not create this one with `make_folders`.
    with suppress(PermissionError):
        sync_folder(folder.parent)
