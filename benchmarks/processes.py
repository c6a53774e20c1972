"""Processes that a benchmark starts: none is left behind, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeVar

from benchmarks.errors import BenchmarkError

PROJECT = Path(__file__).parent.parent
LOCAL = "127.0.0.1"
COMMAND = str(Path(sys.executable).with_name("customerio-pipeline"))

# `up` stops everything within 10 s, and this is no place to find out that it does not.
_GRACE_SECONDS = 30.0
_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 15

Result = TypeVar("Result")


class Process:
    """A process that runs, and the file that its output goes to."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self.log = log
        self._process = process

    def wait_for(
        self, probe: Callable[[], Result | None], what: str, poll_seconds: float = _POLL_SECONDS
    ) -> Result:
        """Return the first result of `probe` that is neither None nor False.

        Raises:
            BenchmarkError: the process ended, or time is up; with the end of its output.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while not (result := probe()):
            if self._process.poll() is not None:
                raise BenchmarkError(f"A process ended before {what}:\n{_tail(self.log)}")
            if time.monotonic() > give_up_at:
                raise BenchmarkError(
                    f"After {_PATIENCE_SECONDS:g} s still not: {what}.\n{_tail(self.log)}"
                )
            time.sleep(poll_seconds)
        return result

    def stop(self) -> None:
        """Ask it to end; kill its group when it does not."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    pass_fds: Sequence[int] = (),
) -> Iterator[Process]:
    """Run a command while the block runs."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=PROJECT,
            pass_fds=tuple(pass_fds),
            # Ctrl-C reaches the benchmark alone, which then ends its processes in order.
            start_new_session=True,
        )
    started = Process(process, log)
    try:
        yield started
    finally:
        started.stop()


def run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        BenchmarkError: it failed; with the end of its output.
    """
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=PROJECT,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        end = "\n".join(done.stderr.splitlines()[-_TAIL_LINES:])
        raise BenchmarkError(f"A process failed ({' '.join(command[1:4])} …):\n{end}")
    return done.stdout


def request(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Send one request to a server of this machine and return the status of the answer.

    Raises:
        OSError, HTTPException: there is none.
    """
    connection = HTTPConnection(LOCAL, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def is_ok(port: int, path: str) -> bool:
    """Tell whether a GET is answered with 200."""
    try:
        return request(port, "GET", path) == 200  # noqa: PLR2004
    except (OSError, HTTPException):
        return False


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    return _ticks(pid, 2) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of_all(pid: int) -> float:
    """Return the processor time of a process and of its children, dead ones included."""
    # Its own user and system time, then those of the children that it has buried.
    ticks = _ticks(pid, 4)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    for child in children.split():
        # One that has just ended is among the buried the next time.
        with suppress(OSError):
            ticks += _ticks(int(child), 2)
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int, fields: int) -> int:
    """Return the sum of a process's first fields of time (proc(5), ``stat``)."""
    status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return sum(map(int, status.rpartition(")")[2].split()[11 : 11 + fields]))


def ignore_ctrl_c() -> None:
    """Leave it to the benchmark itself to end a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tail(log: Path) -> str:
    with log.open(encoding="utf-8", errors="replace") as lines:
        return "".join(deque(lines, maxlen=_TAIL_LINES)).rstrip()
