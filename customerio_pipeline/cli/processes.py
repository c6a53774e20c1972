"""The processes that `up` starts: watched together, stopped together, nothing left behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import httpx

from customerio_pipeline.cli import process_groups
from customerio_pipeline.errors import PipelineError

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 4.0
_TAIL_LINES = 15


class PortInUseError(PipelineError):
    """Something else listens on a port."""

    usage = True


class ProcessError(PipelineError):
    """A process ended by itself or did not become ready."""


class _Child(NamedTuple):
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace_seconds: float


class Processes:
    """Child processes, each the leader of a group that holds all it starts in turn."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        """Prepare to start processes with `environment`, their output appended to `logs`."""
        self._logs = logs
        self._environment = dict(environment)
        self._children: list[_Child] = []
        guarded, self._lifeline = os.pipe()
        # It lives on when this process is killed, and stops the others then.
        self._guard = self._start(
            "guard", [sys.executable, "-I", process_groups.__file__, str(guarded)], guarded
        )
        os.close(guarded)

    def start(
        self, name: str, command: Sequence[str], grace_seconds: float = _GRACE_SECONDS
    ) -> None:
        """Start a process; its output goes to ``<name>.log``.

        Args:
            name: names it in errors, and its log.
            command: and its arguments.
            grace_seconds: what it and all it starts may take to end when they are stopped.
        """
        child = self._start(name, command)._replace(grace_seconds=grace_seconds)
        self._children.append(child)
        self._tell_guard(f"{child.process.pid} {grace_seconds}")

    async def run(self, name: str, command: Sequence[str]) -> None:
        """Run a process to its end.

        Raises:
            ProcessError: it failed.
        """
        self.start(name, command)
        child = self._children.pop()
        try:
            while child.process.poll() is None:  # noqa: ASYNC110  no event tells
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            process_groups.signal_group(child.process.pid, signal.SIGKILL)
            self._tell_guard(f"{child.process.pid}")
        if child.process.returncode != 0:
            raise _failure(child)

    async def watch(self) -> None:
        """Return never.

        Raises:
            ProcessError: a process ended.
        """
        while True:
            for child in (self._guard, *self._children):
                if child.process.poll() is not None:
                    raise _failure(child)
            await asyncio.sleep(_POLL_SECONDS)

    async def stop(self) -> None:
        """Stop every process of every group: politely first, after its grace by force."""
        await asyncio.to_thread(
            process_groups.stop_groups,
            {child.process.pid: child.grace_seconds for child in self._children},
            reap=lambda: [child.process.poll() for child in self._children],
        )
        self._children.clear()
        os.close(self._lifeline)
        self._guard.process.wait()

    def _start(self, name: str, command: Sequence[str], *inherited: int) -> _Child:
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603  commands of ours
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=inherited,
                start_new_session=True,
            )
        return _Child(name, process, log, _GRACE_SECONDS)

    def _tell_guard(self, line: str) -> None:
        with suppress(BrokenPipeError):  # its death is noticed by who watches
            os.write(self._lifeline, f"{line}\n".encode())


def check_port_is_free(host: str, port: int, option: str) -> None:
    """Find out before anything is started whether `port` can be listened on.

    Raises:
        PortInUseError: naming the port and the `option` that chooses another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections that were closed a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise PortInUseError(
                f"Port {port} on {host} cannot be used ({reason}): stop what holds it, or choose"
                f" another with {option}."
            ) from None


def free_port() -> int:
    """Return a port of this machine's own that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_until_listening(host: str, port: int, seconds: float) -> None:
    """Wait until connections to a port are taken.

    Raises:
        ProcessError: none was within `seconds`.
    """

    async def is_listening() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    await _wait_until(is_listening, seconds, f"Nothing listens on port {port} of {host}")


async def wait_until_ok(url: str, seconds: float) -> None:
    """Wait until a GET of `url` is answered with 200.

    Raises:
        ProcessError: it was not within `seconds`.
    """
    async with httpx.AsyncClient() as client:

        async def is_ok() -> bool:
            try:
                return (await client.get(url)).is_success
            except httpx.TransportError:
                return False

        await _wait_until(is_ok, seconds, f"{url} does not answer")


async def _wait_until(
    is_ready: Callable[[], Awaitable[bool]], seconds: float, complaint: str
) -> None:
    try:
        async with asyncio.timeout(seconds):
            while not await is_ready():  # noqa: ASYNC110  no event tells
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise ProcessError(f"{complaint} after {seconds:g} s.") from None


def _failure(child: _Child) -> ProcessError:
    code = child.process.returncode
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
    with child.log.open(encoding="utf-8", errors="replace") as log:
        tail = "".join(deque(log, maxlen=_TAIL_LINES)).rstrip()
    return ProcessError(f"{child.name} ended ({how}); the end of {child.log}:\n{tail}")
