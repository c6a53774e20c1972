"""What the figures depend on: the machine, the versions, and how fast its disk syncs now."""

import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.processes import PROJECT
from benchmarks.report import Row, number

_PACKAGES = (
    "customerio-pipeline",
    "litestar",
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "pyarrow",
    "duckdb",
    "dagster",
)
_SYNCS = 200
_LONGEST_SECONDS = 1.0
_BYTES = 2048


def sync_ms(folder: Path) -> float:
    """Return the median milliseconds that appending 2 KB to a file in `folder` takes, synced."""
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        give_up_at = time.perf_counter() + _LONGEST_SECONDS
        while len(took) < _SYNCS and time.perf_counter() < give_up_at:
            began = time.perf_counter()
            os.write(file.fileno(), bytes(_BYTES))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def describe(folder: Path, load_before: float, sync_before: float) -> list[Row]:
    """Return the machine's data; the disk is that of `folder`, measured again now.

    Args:
        folder: where the benchmarks kept their data.
        load_before: load average of the last minute before the benchmarks began.
        sync_before: what `sync_ms` returned then.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        Row("Processor", f"{_cpu_model()}, {cores()} cores"),
        Row("Memory", f"{memory:.1f} GiB"),
        Row("System", f"{platform.system()} {platform.release()}, {_file_system(folder)}"),
        Row("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        Row("Packages", ", ".join(f"{name} {version(name)}" for name in _PACKAGES)),
        Row("Revision", _revision()),
        Row("Load average before", number(load_before)),
        Row(
            "`fdatasync` of 2 KB, p50, ms",
            f"{number(sync_before)} before, {number(sync_ms(folder))} after",
        ),
    ]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Return the type of the file system that `folder` is on; one in memory syncs nothing."""
    device = folder.stat().st_dev
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, kind = line.partition(" - ")
        major, minor = mount.split()[2].split(":")
        if os.makedev(int(major), int(minor)) == device:
            return kind.split()[0]
    return "unknown file system"


def _revision() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    done = subprocess.run(
        [git, "--no-optional-locks", "describe", "--always", "--dirty"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
