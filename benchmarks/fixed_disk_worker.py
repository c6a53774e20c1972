"""The receiver's worker on a disk whose sync takes the same time always: it sleeps instead.

Everything else is the product's. How long a sync takes stands in a file that may be changed while
the worker runs, so that two disks are compared on one process.
"""

import mmap
import struct
import time
from pathlib import Path

from customerio_pipeline.settings import load_settings
from receiver import slots, worker
from receiver.segments import SegmentWriter

_SECONDS = struct.Struct("d")
_memory: mmap.mmap


class FixedSyncWriter(SegmentWriter):
    """A segment whose sync only takes time; its folder is in memory."""

    def sync(self) -> None:
        """Sleep as long as the file says."""
        time.sleep(*_SECONDS.unpack_from(_memory))


def set_sync(home: Path, seconds: float) -> None:
    """Say how long a sync of the worker of this installation takes from now on."""
    with (home / "sync").open("r+b" if (home / "sync").exists() else "wb") as file:
        file.write(_SECONDS.pack(seconds))


if __name__ == "__main__":
    with (load_settings().home / "sync").open("rb") as file:
        _memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    slots.SegmentWriter = FixedSyncWriter  # type: ignore[attr-defined]  # as in unstored_worker
    worker.main()
