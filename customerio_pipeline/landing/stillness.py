"""Who reads landing files of a listing, or writes new ones, and who takes files away.

The kernel frees the lock of a process that died. It lies on the integration's folder itself, so
readers need no right to write.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOK_EVERY_SECONDS = 0.01


@contextmanager
def kept_still(landing: Path, schema: str) -> Iterator[None]:
    """Keep the files of an integration where they are; new ones may come.

    Any number of processes may do so at once. Where folders cannot be locked, nobody takes files
    away either.
    """
    folder = None
    with suppress(OSError):
        folder = os.open(_folder(landing, schema), os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if folder is not None:
            os.close(folder)


@contextmanager
def disturbed(landing: Path, schema: str, wait_seconds: float) -> Iterator[bool]:
    """Yield whether nobody keeps the files still, nor writes one, until the end of the block.

    Raises:
        OSError: the folder cannot be locked.
    """
    folder = os.open(_folder(landing, schema), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(folder, time.monotonic() + wait_seconds)
    finally:
        os.close(folder)


def _lock(folder: int, until: float) -> bool:
    # Asked again and again: one that waits in the kernel cannot give up.
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_EVERY_SECONDS)
        else:
            return True


def _folder(landing: Path, schema: str) -> Path:
    return landing / f"integration={schema}"
