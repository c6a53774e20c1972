"""Services as a deployment's files describe them, run for real on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from tests.running_receiver import wait_until

PROJECT = Path(__file__).parent.parent
DEPLOY = PROJECT / "deploy"
BIN = Path(sys.executable).parent

# What a service manager or container gives by itself.
_BARE = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


def _as_a_service_begins() -> None:
    # Tests that run in a shell's background ignore it, and so would what they start; and Dagster
    # takes SIGTERM for SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True, slots=True)
class Service:
    """A service: its command, what runs before and after its start, and its environment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    before: Sequence[Sequence[str]] = ()
    after: Sequence[Sequence[str]] = field(default=())
    """Each ends with success once the service is up."""


class Services:
    """Services that run, each with its own log and, as in a container, its own process group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, service: Service, *, listener: int | None = None) -> None:
        """Start a service and wait until it is up; `listener` is passed as systemd does."""
        for command in service.before:
            self.run(service, command)
        command = list(service.command)
        if listener is not None:
            command = [
                "bash",
                "-c",
                f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&{listener}',
                "sh",
                *command,
            ]
        with self._log(service.name).open("ab") as log:
            self._running[service.name] = subprocess.Popen(
                command,
                env=_BARE | service.environment,
                cwd="/",
                stdout=log,
                stderr=log,
                pass_fds=() if listener is None else (listener,),
                start_new_session=True,
                preexec_fn=_as_a_service_begins,  # noqa: PLW1509  it takes no lock
            )
        for check in service.after:
            wait_until(partial(self._succeeds, service, check), f"{service.name}: {check}")

    def run(self, service: Service, command: Sequence[str]) -> str:
        """Run a command where the service runs and return what it prints."""
        done = self._done(service, command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self, name: str) -> int:
        """Send SIGTERM to the service's process and return its exit code."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def kill_everything(self) -> None:
        """Leave nothing running."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def log(self, name: str) -> str:
        """Return what a service printed."""
        return self._log(name).read_text()

    def _succeeds(self, service: Service, command: Sequence[str]) -> bool:
        assert self._running[service.name].poll() is None, self.log(service.name)
        return self._done(service, command).returncode == 0

    def _done(self, service: Service, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        environment = _BARE | service.environment
        return subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=False
        )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@contextmanager
def running_services(folder: Path) -> Iterator[Services]:
    """Yield services to be started; nothing of them is left at the end."""
    services = Services(folder)
    try:
        yield services
    finally:
        services.kill_everything()


def wait_until_ok(url: str) -> None:
    """Wait until a GET of `url` is answered with success."""

    def is_ok() -> bool:
        try:
            return httpx.get(url).is_success
        except httpx.TransportError:
            return False

    wait_until(is_ok, url)


def check_event_reaches_table(services: Services, service: Service, port: int) -> None:
    """Make an integration, send an event to `port`, and find it in the table of the warehouse."""
    created = services.run(service, ["customerio-pipeline", "integrations", "create", "Shop"])
    token = re.search(r"/v1/webhooks/(\S+)", created)
    assert token, created
    body = json.dumps({"event_id": "01ABC", "object_type": "email", "metric": "sent"})
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/webhooks/{token[1]}", content=body)
    assert answer.status_code == 200
    query = ["customerio-pipeline", "query", "--json", "SELECT event_id, metric FROM shop.data"]

    def rows() -> str:
        done = subprocess.run(
            query, env=_BARE | service.environment, capture_output=True, text=True, check=False
        )
        return done.stdout if "01ABC" in done.stdout else ""

    [row] = json.loads(wait_until(rows, "the event is in the table"))
    assert row == {"event_id": "01ABC", "metric": "sent"}
    verified = services.run(service, ["customerio-pipeline", "verify"])
    assert "shop: nothing is missing" in verified
