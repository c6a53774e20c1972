"""What a process took between two moments: time, processor time, and the most memory it held."""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Stopwatch:
    """Measures a block, in the process that runs it.

    Processor time is the process's own and that of its ended children, in user and system mode;
    memory is the most that the process held from its start on, imports included.
    """

    def __init__(self) -> None:
        self._seconds = self._cpu_seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Take the time while the block runs."""
        cpu_before, began = _cpu_seconds(), time.perf_counter()
        yield
        self._seconds = time.perf_counter() - began
        self._cpu_seconds = _cpu_seconds() - cpu_before

    def found(self) -> dict[str, float]:
        """Return what was measured, by name."""
        return {
            "seconds": self._seconds,
            "cpu_seconds": self._cpu_seconds,
            "peak_bytes": peak_bytes(),
        }


def peak_bytes() -> int:
    """Return the most memory that this process held; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
