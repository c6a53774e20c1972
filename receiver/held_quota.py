"""How much is held of an integration: what somebody who has the URL alone can make us keep.

A delivery that no key signed is landed like any other and waits for a person to look at it.
That person's next act (a key, another mode, a reverification) begins an epoch and with it a new
count. All workers count in one file of a few bytes, ``<spool>/held.<schema>``, which outlives them.
"""

import fcntl
import os
from pathlib import Path
from struct import Struct

_PREFIX = "held."
_OWNER_ONLY = 0o600

# Epoch, deliveries, bytes.
_COUNT = Struct("<qqq")


class HeldQuota:
    """Counts what is held; a call takes microseconds."""

    def __init__(self, spool: Path, max_deliveries: int, max_bytes: int) -> None:
        self._spool = spool
        self._max_deliveries = max_deliveries
        self._max_bytes = max_bytes
        self._files: dict[str, int] = {}

    def take(self, schema: str, epoch: int, size: int) -> bool:
        """Count one more of `size` bytes; false where it is too much, and not counted then.

        Raises:
            OSError: the count cannot be kept.
        """
        return self._change(schema, epoch, 1, size)

    def give_back(self, schema: str, epoch: int, size: int) -> None:
        """Count one less: it could not be stored."""
        self._change(schema, epoch, -1, -size)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def _change(self, schema: str, epoch: int, deliveries: int, size: int) -> bool:
        descriptor = self._files.get(schema)
        if descriptor is None:
            path = self._spool / f"{_PREFIX}{schema}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
            self._files[schema] = descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            content = os.pread(descriptor, _COUNT.size, 0)
            held_epoch, held, held_bytes = (
                _COUNT.unpack(content) if len(content) == _COUNT.size else (epoch, 0, 0)
            )
            if epoch > held_epoch:
                held_epoch, held, held_bytes = epoch, 0, 0
            held += deliveries
            held_bytes += size
            if deliveries > 0 and (held > self._max_deliveries or held_bytes > self._max_bytes):
                return False
            os.pwrite(descriptor, _COUNT.pack(held_epoch, max(held, 0), max(held_bytes, 0)), 0)
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        return True
