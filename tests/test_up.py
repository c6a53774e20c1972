"""``customerio-pipeline up``: one command starts everything, Ctrl-C stops everything."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from customerio_pipeline.cli import main
from customerio_pipeline.cli.demo import Demo
from customerio_pipeline.cli.processes import ProcessError, Processes, free_port
from customerio_pipeline.errors import UrlLimitError
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings

PROJECT = Path(__file__).parent.parent
COMMAND = str(Path(sys.executable).with_name("customerio-pipeline"))
PATIENCE_SECONDS = 120.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an installation and a Dagster home of its own."""
    dagster_home = tmp_path / "dagster_home"
    dagster_home.mkdir()
    shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", dagster_home)
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUSTOMERIO_ADMIN_PORT", "off")
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "home"


def _processes_of(home: Path) -> set[int]:
    """Return every process started for this installation, whoever its parent is now."""
    mark = f"CUSTOMERIO_HOME={home}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in environment:
                found.add(int(entry.name))
    return found


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that types a command which is refused, and returns what it printed."""

    def command(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["customerio-pipeline", "up", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return capsys.readouterr().err

    return command


@contextmanager
def _running_up(*options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [COMMAND, "up", *options], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def _read_until(output: IO[str] | None, text: str) -> str:
    """Return what is printed up to and including the line with `text`."""
    assert output is not None
    read = ""
    for line in output:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} was not printed:\n{read}")


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.5)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready").is_success
    except httpx.TransportError:
        return False


def _sensors(dagster_url: str) -> set[str]:
    """Return the sensors that Dagster's daemon has ticked."""
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { sensors {
        name sensorState { ticks(limit: 1) { id } } } } } } }"""
    answer = httpx.post(f"{dagster_url}/graphql", json={"query": query}, timeout=30).json()
    return {
        sensor["name"]
        for node in answer["data"]["repositoriesOrError"]["nodes"]
        for sensor in node["sensors"]
        if sensor["sensorState"]["ticks"]
    }


@pytest.mark.xdist_group("up")
def test_the_demo_shows_rows_and_ctrl_c_stops_every_process(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows appear, new integrations do as well; nothing is left behind, nor readable for others."""
    port, dagster_port, admin_port = free_port(), free_port(), free_port()
    dagster_url = f"http://127.0.0.1:{dagster_port}"
    monkeypatch.setenv("CUSTOMERIO_ADMIN_PORT", str(admin_port))
    options = [f"--port={port}", f"--dagster-port={dagster_port}"]
    with _running_up("--demo", "--events=50", *options) as process:
        printed = _read_until(process.stdout, "That was:")

        assert re.search(rf"Webhook URL +http://127.0.0.1:{port}/v1/webhooks/\S{{43}}\n", printed)
        assert dagster_url in printed
        assert re.search(r"Password +(\w{5}-){4}\w{5} ", printed)
        page = re.search(r"Management +(\S+)", printed)
        assert page
        assert 'type="password"' in httpx.get(page[1], follow_redirects=True).text
        assert re.search(r"email\W+sent\W+\d+\W", printed)
        assert httpx.get(f"{dagster_url}/server_info").status_code == 200

        monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", dagster_url)
        created = subprocess.check_output(
            [COMMAND, "integrations", "create", "Second"], text=True, cwd=PROJECT
        )
        assert "Schema       second" in created
        _wait_until(lambda: "second_sensor" in _sensors(dagster_url), "its sensor ticks")

        assert len(_processes_of(home)) >= 7
        token = printed.split("/v1/webhooks/")[1].split()[0]
        assert all(
            token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in _processes_of(home)
        )
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        took = time.monotonic() - asked
    assert _processes_of(home) == set()
    assert took < 10
    logs = {log.name for log in (home / "logs").iterdir()}
    assert {"receiver.log", "code-server.log", "webserver.log", "daemon.log"} <= logs
    assert all(token not in (home / "logs" / name).read_text() for name in logs)
    assert [path for path in (home, *home.rglob("*")) if path.stat().st_mode & 0o007] == []


@pytest.mark.parametrize("option", ["--port", "--dagster-port"])
def test_a_port_in_use_is_named_and_nothing_is_started(
    home: Path, option: str, refused: Callable[..., str]
) -> None:
    """The sentence says which option chooses another port."""
    ports = {"--port": free_port(), "--dagster-port": free_port()}
    with socket.create_server(("127.0.0.1", ports[option])):
        printed = refused(*(f"{name}={number}" for name, number in ports.items()))

    assert printed.startswith(f"Error: Port {ports[option]} on 127.0.0.1 cannot be used")
    assert option in printed
    assert printed.count("\n") == 1
    assert not home.exists()


def test_without_a_dagster_home_it_says_where_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    """Dagster would make a temporary one, and forget everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert "start in the project's folder, or set DAGSTER_HOME" in refused()

    monkeypatch.setenv("DAGSTER_HOME", "dagster_home")
    assert "must be an absolute path" in refused()


def test_events_without_demo_is_refused(refused: Callable[..., str]) -> None:
    """Nothing would send them."""
    assert "--events needs --demo" in refused("--events=5")


@pytest.mark.xdist_group("up")
def test_a_process_that_dies_stops_all_the_others(home: Path, tmp_path: Path) -> None:
    """The sentence says which, and shows the end of its log."""
    (tmp_path / "dagster_home" / "dagster.yaml").write_text("storage: {nonsense: true}")
    options = [f"--port={free_port()}", f"--dagster-port={free_port()}"]

    done = subprocess.run(
        [COMMAND, "up", *options], cwd=PROJECT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert re.match(r"Error: [a-z-]+ ended \(exit code 1\); the end of ", done.stderr)
    assert "nonsense" in done.stderr
    assert _processes_of(home) == set()


@pytest.mark.xdist_group("up")
def test_a_killed_up_takes_its_processes_with_it(home: Path) -> None:
    """Even SIGKILL, which it cannot see coming, leaves nothing behind; all drain first."""
    port = free_port()
    with _running_up(f"--port={port}", f"--dagster-port={free_port()}") as process:
        _wait_until(lambda: _is_ready(port), "the receiver is ready")
        assert len(_processes_of(home)) >= 5
        process.kill()

        _wait_until(lambda: not _processes_of(home), "all others are gone")
    assert '"event":"stopped"' in (home / "logs" / "receiver.log").read_text()


class TestDemoUrls:
    """Which webhook URL a demo uses: tokens are known only when they are made."""

    def test_demos_replace_their_own_urls_only(
        self, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The third demo revokes the URL of the first, and says so."""
        for _ in range(3):
            Demo(load_settings(), None).prepare()

        printed = capsys.readouterr().out
        with closing(Registry.open(load_settings().registry)) as registry:
            urls = registry.urls(registry.find("stitch_customerio"))
        assert [url.is_live for url in urls] == [False, True, True]
        assert f"Revoked      {urls[0].id}" in printed
        assert printed.count("/v1/webhooks/") == 3
        assert not any(
            token in (home / "demo-urls.json").read_text()
            for token in re.findall(r"webhooks/(\S{43})", printed)
        )

    @pytest.mark.usefixtures("home")
    def test_urls_of_the_user_are_never_revoked(self) -> None:
        """Customer.io may be calling them."""
        with closing(Registry.open(load_settings().registry)) as registry:
            integration, _ = registry.create("Stitch Customerio")
            registry.generate_url(integration)

            with pytest.raises(UrlLimitError):
                Demo(load_settings(), None).prepare()

            assert all(url.is_live for url in registry.urls(integration))


class TestProcesses:
    """Starting and stopping processes, whatever they do."""

    def test_grandchildren_that_ignore_the_signal_are_killed(self, tmp_path: Path) -> None:
        """The leader's death is not enough."""
        script = "trap '' TERM; sleep 300 & echo $!; wait"

        async def start_and_stop() -> int:
            processes = Processes(tmp_path, dict(os.environ))
            processes.start("stubborn", ["sh", "-c", script], grace_seconds=0.3)
            log = tmp_path / "stubborn.log"
            while not (written := log.read_text()):  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.02)
            await processes.stop()
            return int(written)

        grandchild = asyncio.run(start_and_stop())

        _wait_until(lambda: not _is_running(grandchild), "the grandchild is dead")

    def test_nothing_is_left_of_a_killed_parent(self, tmp_path: Path) -> None:
        """What it started has its grace, then it is killed; what ended before does not count."""
        script = f"""
import asyncio, os
from pathlib import Path
from customerio_pipeline.cli.processes import Processes

async def main():
    processes = Processes(Path({str(tmp_path)!r}), dict(os.environ))
    await processes.run("over", ["true"])
    processes.start("stubborn", ["sh", "-c", "trap '' TERM; sleep 300 & echo $!; wait"], 0.3)
    await processes.watch()

asyncio.run(main())
"""
        log = tmp_path / "stubborn.log"
        with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT) as parent:
            _wait_until(lambda: log.exists() and log.read_text() != "", "a grandchild runs")
            parent.kill()

        grandchild = int(log.read_text())
        _wait_until(lambda: not _is_running(grandchild), "the grandchild is dead")
        assert (tmp_path / "guard.log").read_text() == ""

    def test_the_death_of_a_process_is_noticed(self, tmp_path: Path) -> None:
        """With its exit code and the end of its log."""

        async def watch() -> None:
            processes = Processes(tmp_path, dict(os.environ))
            processes.start("brief", ["sh", "-c", "echo last words; exit 3"])
            try:
                await processes.watch()
            finally:
                await processes.stop()

        with pytest.raises(ProcessError, match=r"brief ended \(exit code 3\)[^$]*last words"):
            asyncio.run(watch())


def _is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
