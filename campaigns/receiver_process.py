"""A receiver as a user starts it, for a campaign: seen from outside, by its log and its port."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any

from customerio_pipeline.registry.registry import Registry

SCHEMA = "crashes"
_COMMAND = str(Path(sys.executable).with_name("customerio-pipeline"))
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.01
_SIGNALLED = 128
"""Exit codes of processes that a signal ended begin here, as shells count."""

_SETTINGS = {
    # Small, so that segments are begun and sealed all the time.
    "CUSTOMERIO_SEGMENT_MAX_BYTES": "262144",
    "CUSTOMERIO_SEAL_AFTER_SECONDS": "0.2",
    "CUSTOMERIO_ACCESS_LOG": "false",
    "CUSTOMERIO_ADMIN_PORT": "off",
}


def create_integration(home: Path) -> str:
    """Create an installation in `home`; return the token of its webhook."""
    home.mkdir(parents=True)
    with closing(Registry.open(f"sqlite:///{home / 'registry.sqlite'}")) as registry:
        return registry.create(SCHEMA)[1].token


class ReceiverProcess:
    """The command ``receiver`` and the processes that it starts."""

    def __init__(self, home: Path, workers: int, prefix: tuple[str, ...] = ()) -> None:
        self._log = home / "receiver.log"
        self._skip = self._log.stat().st_size if self._log.exists() else 0
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("CUSTOMERIO_")
        }
        with self._log.open("ab") as log, _sigterm_put_off():
            self._process = subprocess.Popen(
                [*prefix, _COMMAND, "receiver", "--port=0", f"--workers={workers}"],
                env=clean | _SETTINGS | {"CUSTOMERIO_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            _started.append(self)

    @property
    def runs(self) -> bool:
        """Whether the process started has not ended yet."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process started; with a prefix, that one."""
        return self._process.pid

    def pids(self, child: str) -> list[int]:
        """Return the ids of the processes of this kind started so far."""
        return [line["pid"] for line in self.logged("started") if line.get("child") == child]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of the log with this event."""
        with self._log.open("rb") as log:
            log.seek(self._skip)
            # Who is killed while it writes a line leaves its beginning in front of the next.
            lines = [
                json.loads(line[line.rindex(b'{"timestamp"') :])
                for line in log
                if line.endswith(b"}\n")
            ]
        return [line for line in lines if line["event"] == event]

    def wait_ready(self) -> int:
        """Wait until deliveries are taken; return the port.

        Raises:
            RuntimeError: they are not.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            for line in self.logged("listening"):
                if _is_ready(line["port"]):
                    port: int = line["port"]
                    return port
            if self._process.poll() is not None:
                break
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"The receiver is not ready: see {self._log}.")

    def kill_all(self) -> None:
        """Kill every process of it with SIGKILL, at once, and wait until none is left."""
        # Stopped, it starts no more. With a prefix, its parent is another one of the group.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGSTOP)
        pids = {*_descendants(self.pid), *self.pids("worker"), *self.pids("sealer")}
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(_PATIENCE_SECONDS)
        wait_until_gone(pids)

    def wait(self) -> int:
        """Wait until it ends and return its exit code."""
        return self._process.wait(_PATIENCE_SECONDS)

    def stop(self) -> int:
        """Drain it and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_PATIENCE_SECONDS)


def wait_until_gone(pids: Iterable[int]) -> None:
    """Wait until processes that are not our children have ended."""
    while any(_runs(pid) for pid in pids):
        time.sleep(_POLL_SECONDS)


def _runs(pid: int) -> bool:
    try:
        # Of a zombie, which nobody may ever wait for, everything else is gone.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200  # noqa: PLR2004
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


_started: list[ReceiverProcess] = []
"""Those that this process started, so that SIGTERM ends even one that nobody holds yet."""


@contextmanager
def _sigterm_put_off() -> Iterator[None]:
    """Let SIGTERM wait: amid its start, a process is known to nobody who could end it."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        for number in came:
            signal.raise_signal(number)


def end_on_sigterm() -> None:
    """Have SIGTERM end this process as Ctrl-C does: it stops first what it started."""

    def end(number: int, _: FrameType | None) -> None:
        for receiver in _started:
            if receiver.runs:
                receiver.kill_all()
        sys.exit(_SIGNALLED + number)

    signal.signal(signal.SIGTERM, end)
