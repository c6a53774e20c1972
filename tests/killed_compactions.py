"""Compacts copies of a landing folder with processes that are killed, each one operation later.

Run as ``python -m tests.killed_compactions LANDING COPIES``; each copy is left as its process left
it. Prints how many were killed. A process of its own, because it forks.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import pyarrow as pa

from customerio_pipeline.landing.compaction import compact
from tests.landed_bodies import SCHEMA

# Audit events of the operations that change files (Python's "audit events table").
_OPERATIONS = frozenset(
    {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod"}
)


def main() -> None:
    """Compact copy after copy until a process gets to the end of its work."""
    landing, copies = map(Path, sys.argv[1:])
    # Makes pyarrow import pandas, where it is installed, here and not in each killed process.
    pa.array([b""])
    for operation in range(1, 1000):
        copy = copies / f"{operation:03d}"
        shutil.copytree(landing, copy)
        if not _is_killed(copy, operation):
            break
    print(operation - 1)  # noqa: T201


def _is_killed(landing: Path, operation: int) -> bool:
    """Compact in a process that dies as it begins its n-th file operation; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = operation

        def die(event: str, _: object) -> None:
            nonlocal left
            if event in _OPERATIONS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        compact(landing, SCHEMA)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


if __name__ == "__main__":
    main()
