"""System calls of a running process that fail: strace answers them instead of the kernel."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

INJECTED = "(INJECTED)"
"""How a line of the trace ends whose call was let fail."""


def why_impossible() -> str | None:
    """Return why nothing can be let fail on this machine, None when it can."""
    if shutil.which("strace") is None:
        return "it needs strace (Debian: apt install strace)"
    with subprocess.Popen(["sleep", "60"]) as stranger:  # noqa: S607
        try:
            with failing(stranger.pid, Path(os.devnull), ("-e", "trace=none")):
                return None
        except RuntimeError as error:
            return f"this user may not trace other processes ({error})"
        finally:
            stranger.kill()


@contextmanager
def failing(pid: int, trace: Path, options: Iterable[str]) -> Iterator[None]:
    """Attach strace with these options to a process and its threads, and let go at the end.

    Raises:
        RuntimeError: it could not attach, with its own words.
    """
    command = ("strace", "-f", "-yy", "-p", str(pid), "-o", str(trace), *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        said = tracer.stderr.readline() if tracer.stderr else ""
        if "attached" not in said:
            raise RuntimeError(said.strip())
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
