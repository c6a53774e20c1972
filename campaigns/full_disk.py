"""Load into a file system that is full, then make room and load again."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from campaigns.installation import Installation, in_a_process
from campaigns.steps import StepMarker

_SIZES_KIB = (0, 200, 300, 600, 1000, 2000, 3000, 5000, 10_000)
"""Room for the first load, from none to enough; read copies take as much again."""

_ROOM = "64m"


def measure(folder: Path) -> list[str]:
    """Return the lines of the report; one line where this machine permits no mounts."""
    lines = ["| room on a full disk | first load | after room was made |", "|---|---|---|"]
    for size in _SIZES_KIB:
        home = folder / f"disk-{size}"
        chance = random.Random(size)  # noqa: S311  seeded
        installation = Installation(home, "duckdb", "full", chance)
        installation.land(files=6)
        (home / "warehouse").mkdir()
        try:
            with _mounted(home / "warehouse", max(size, 4)):
                lines.append(f"| {size} KiB | {_load_twice(installation, home)} |")
        except (OSError, subprocess.CalledProcessError):
            return ["Full disks were left out: this user may not mount a file system.", ""]
    return [*lines, ""]


def _load_twice(installation: Installation, home: Path) -> str:
    with closing(StepMarker("duckdb")) as marker:
        code = in_a_process(lambda: installation.load_or_fail(marker))
        _mount(home / "warehouse", f"remount,size={_ROOM}")
        differences = installation.load_and_compare(marker)
    first = {0: "done", 3: "failed with one sentence"}.get(code, "WRONG: died")
    return f"{first} | {'WRONG: ' + '; '.join(differences) if differences else 'equal'}"


@contextmanager
def _mounted(folder: Path, size_kib: int) -> Iterator[None]:
    _mount(folder, f"size={size_kib}k")
    try:
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", folder], check=True, capture_output=True)  # noqa: S607


def _mount(folder: Path, options: str) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", folder],  # noqa: S607
        check=True,
        capture_output=True,
    )
