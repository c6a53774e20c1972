"""Erases a person in copies of an installation, with processes killed one operation later each.

Run as ``python -m tests.killed_erasures HOMES ID EMAIL``; ``HOMES/origin`` is copied, each copy is
left as its process left it. Prints how many were killed. A process of its own, because it forks.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import pyarrow as pa
from click.testing import CliRunner

from customerio_pipeline.cli import cli

# Audit events of the operations that change files (Python's "audit events table").
_OPERATIONS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"})
_PLACES = ("landing", ".lock")
_MOST_KILLS = 1000


def main() -> None:
    """Erase in copy after copy until a process gets to the end of its work."""
    homes = Path(sys.argv[1])
    # Nothing is imported in a process that is killed.
    pa.array([b""])
    CliRunner().invoke(cli, ["erase", "--help"])
    for operation in range(1, _MOST_KILLS):
        home = homes / f"{operation:03d}"
        shutil.copytree(homes / "origin", home)
        if not _is_killed(home, operation):
            break
    print(operation - 1)  # noqa: T201


def _is_killed(home: Path, operation: int) -> bool:
    """Erase in a process that dies as it begins its n-th change; tell whether it did."""
    child = os.fork()
    if child == 0:
        left = operation
        os.environ["CUSTOMERIO_HOME"] = str(home)
        os.environ["CUSTOMERIO_WAREHOUSE"] = f"duckdb:///{home / 'w.duckdb'}"

        def die(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            reads = event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR)
            if (
                event in _OPERATIONS
                and not reads
                and any(name in str(arguments[0]) for name in _PLACES)
            ):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        arguments = ["erase", "Stitch Customerio", "--customer-id", sys.argv[2]]
        result = CliRunner().invoke(cli, [*arguments, "--email", sys.argv[3]])
        os._exit(result.exit_code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


if __name__ == "__main__":
    main()
