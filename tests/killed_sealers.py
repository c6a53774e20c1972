"""Seals a spool with processes that are killed, each one file operation later than the last.

Run as ``python -m tests.killed_sealers SPOOL LANDING``; prints the bodies that were stored. A
process of its own, because it forks.
"""

import json
import os
import signal
import sys
from pathlib import Path

from receiver.sealing import seal_once
from tests.spool_contents import SCHEMA, journal_with, store

# Audit events of the operations that change files (Python's "audit events table").
_OPERATIONS = frozenset({"open", "os.mkdir", "os.rename", "os.remove"})


def main() -> None:
    """Store and seal until a process gets to the end of its work."""
    spool, landing = map(Path, sys.argv[1:])
    # Where it is installed, pyarrow would import it in each process, and most kills hit that.
    sys.modules["pandas"] = None
    stored: list[str] = []
    for operation in range(1, 1000):
        new = [f"{operation}{part}" for part in "abc"]
        journal = journal_with(spool, [[new[0].encode()], [new[1].encode()]])
        store(journal, new[2].encode(), schema="other")
        journal.close()
        stored += new[:2]
        if not _is_killed(spool, landing, operation):
            break
    print(json.dumps({SCHEMA: stored, "killed": operation - 1}))  # noqa: T201


def _is_killed(spool: Path, landing: Path, operation: int) -> bool:
    """Seal in a process that dies as it begins its n-th file operation; tell whether it did."""
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
        seal_once(spool, landing)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


if __name__ == "__main__":
    main()
