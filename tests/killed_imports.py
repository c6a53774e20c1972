"""Imports a file with processes that are killed, each one file operation later than the last.

Run as ``python -m tests.killed_imports FILE LANDING``; prints how many were killed. A process
of its own, because it forks.
"""

import os
import signal
import sys
from pathlib import Path

import pyarrow as pa
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from customerio_pipeline.importing import landing

# Audit events of the operations that change files (Python's "audit events table").
_OPERATIONS = frozenset({"open", "os.mkdir", "os.rename", "os.remove"})
_MOST_KILLS = 1000


def main() -> None:
    """Import until a process gets to the end of its work."""
    # Several landing files; and no import of a module that opens files in the killed process.
    landing.FILE_RECORDS = 2
    pa.array([b""])
    CliRunner().invoke(cli, ["import", "--help"])
    killed = 0
    while killed < _MOST_KILLS and _is_killed(sys.argv[1], killed + 1):
        killed += 1
        _let_a_year_pass(Path(sys.argv[2]), killed)
    print(killed)  # noqa: T201


def _let_a_year_pass(landing: Path, killed: int) -> None:
    """Put what was landed into the folder of another day: a repeat comes at another hour."""
    for folder in landing.glob("integration=*/date=20*"):
        folder.rename(folder.with_name(f"date={1900 + killed}-01-01"))


def _is_killed(file: str, operation: int) -> bool:
    """Import in a process that dies as it begins its n-th change; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = operation

        def die(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in _OPERATIONS and "landing" in str(arguments[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        result = CliRunner().invoke(cli, ["import", "Stitch Customerio", file])
        os._exit(result.exit_code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


if __name__ == "__main__":
    main()
