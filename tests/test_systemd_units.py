"""The units in ``deploy/systemd`` are what systemd takes, hardened, and their commands work."""

import shlex
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from customerio_pipeline.cli.processes import free_port
from tests.deployed_services import (
    BIN,
    DEPLOY,
    PROJECT,
    Service,
    check_event_reaches_table,
    running_services,
    wait_until_ok,
)

UNITS = DEPLOY / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
# Of 100; 20 is the edge of what systemd calls OK, an ordinary service has 96.
EXPOSURE = "20"

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def _installed(folder: Path, replacing: Mapping[str, str] | None = None) -> Path:
    """Copy the units, their paths those of this checkout and of `folder`."""
    places = {
        "/opt/customerio-pipeline/.venv/bin": str(BIN),
        "/opt/customerio-pipeline/dagster_home": str(folder / "dagster_home"),
        "/opt/customerio-pipeline": str(PROJECT),
        "/etc/customerio-pipeline": str(folder),
        "/var/lib/customerio-pipeline": str(folder / "home"),
        **(replacing or {}),
    }
    units = folder / "units"
    units.mkdir()
    for unit in UNITS.iterdir():
        text = unit.read_text()
        for place, replacement in places.items():
            text = text.replace(place, replacement)
        (units / unit.name).write_text(text)
    return units


@needs_systemd
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Every unit, with all that it refers to."""
    units = _installed(tmp_path)
    checked = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *sorted(units.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if "customerio" in line]
    assert (complaints, checked.returncode) == ([], 0)


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_services_are_hardened(name: str) -> None:
    """By systemd's own measure."""
    command = [str(ANALYZE), "security", "--offline=true", f"--threshold={EXPOSURE}"]
    checked = subprocess.run([*command, UNITS / name], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout[-300:]


def test_the_units_carry_an_event_into_the_table(tmp_path: Path) -> None:
    """All services, by the commands and environments of their units, in their order."""
    ports = {name: free_port() for name in ("4266", "3000")}
    units = _installed(
        tmp_path, {f"--port={port}": f"--port={free}" for port, free in ports.items()}
    )
    (tmp_path / "dagster_home").mkdir()
    shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", tmp_path / "dagster_home")
    workspace = (DEPLOY / "workspace.yaml").read_text().replace("4266", str(ports["4266"]))
    (tmp_path / "workspace.yaml").write_text(workspace)
    (tmp_path / "settings.env").write_text(
        f"CUSTOMERIO_DAGSTER_URL=http://127.0.0.1:{ports['3000']}\nCUSTOMERIO_ADMIN_PORT=off\n"
    )
    listener = socket.create_server(("127.0.0.1", 0))
    with running_services(tmp_path) as services, listener:
        receiver = _service(units, "receiver", tmp_path)
        services.start(receiver, listener=listener.fileno())
        for name in ("dagster-code", "dagster-webserver", "dagster-daemon"):
            services.start(_service(units, name, tmp_path))
        wait_until_ok(f"http://127.0.0.1:{ports['3000']}/server_info")
        check_event_reaches_table(services, receiver, listener.getsockname()[1])
        for name in ("dagster-daemon", "dagster-webserver", "dagster-code"):
            services.stop(name)
        assert services.stop("receiver") == 0, services.log("receiver")


def _service(units: Path, name: str, folder: Path) -> Service:
    """Read a unit as systemd does, as far as our units need it."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for line in (units / f"customerio-pipeline-{name}.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            said[key].append(value)
    workspace = f"{PROJECT}/deploy/workspace.yaml"

    def commands(key: str) -> list[list[str]]:
        return [
            shlex.split(line.replace(workspace, f"{folder}/workspace.yaml")) for line in said[key]
        ]

    [command] = commands("ExecStart")
    environment = dict(pair.split("=", 1) for pair in said["Environment"])
    return Service(name, command, environment, commands("ExecStartPre"), commands("ExecStartPost"))
