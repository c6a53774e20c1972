"""``customerio-pipeline up``: receiver and Dagster on this machine, until Ctrl-C."""

import asyncio
import json
import os
import signal
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from customerio_pipeline.cli.demo import Demo
from customerio_pipeline.cli.processes import (
    Processes,
    check_port_is_free,
    free_port,
    wait_until_listening,
    wait_until_ok,
)
from customerio_pipeline.errors import SettingsError
from customerio_pipeline.management.passwords import make_first_password
from customerio_pipeline.orchestration.reload import LOCATION
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, environment_settings

_LOCAL = "127.0.0.1"
_ANY_HOST = frozenset({"0.0.0.0", "::"})  # noqa: S104  compared with, not bound
_BIN = Path(sys.executable).parent
_READY_SECONDS = 60.0
_DEMO_RUN_SECONDS = 60.0
# All ends within 10 s. What the receiver stored and what a run committed is safe in any case; but
# requests shall be answered, and a run that is killed would have to be found dead first.
_LONG_GRACE_SECONDS = 7.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Installation:
    """What is started where."""

    settings: Settings
    dagster_home: Path
    host: str
    port: int
    dagster_port: int
    code_server_port: int

    @property
    def workspace(self) -> Path:
        """Tells webserver and daemon where the code server is."""
        return self.settings.home / "dagster" / "workspace.yaml"

    @property
    def environment(self) -> dict[str, str]:
        """The same settings for every process."""
        return {
            **os.environ,
            "CUSTOMERIO_HOME": str(self.settings.home),
            "CUSTOMERIO_PUBLIC_URL": self.settings.public_url,
            "CUSTOMERIO_DAGSTER_URL": self.settings.dagster_url,
            "CUSTOMERIO_LOAD_MAX_SECONDS": str(self.settings.load_max_seconds),
            "DAGSTER_HOME": str(self.dagster_home),
            # By the time that it is stopped nobody waits for an answer of the code server.
            "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "0",
        }


@click.command()
@click.option("--demo", is_flag=True, help="Send simulated events and show the first rows.")
@click.option(
    "--events", type=click.IntRange(min=1), help="Stop sending after so many (with --demo)."
)
@click.option("--host", default=_LOCAL, show_default=True, help="Address of the receiver.")
@click.option("--port", default=8080, show_default=True, help="Port of the receiver.")
@click.option("--dagster-port", default=3000, show_default=True, help="Port of Dagster's web UI.")
def up(*, demo: bool, events: int | None, host: str, port: int, dagster_port: int) -> None:
    """Start the receiver and Dagster; Ctrl-C stops everything."""
    if events is not None and not demo:
        raise click.UsageError("--events needs --demo.")
    dagster_home = _dagster_home()
    settings = environment_settings()
    check_port_is_free(host, port, "--port")
    check_port_is_free(_LOCAL, dagster_port, "--dagster-port")
    installation = _Installation(
        settings=_settings_in_force(settings, host, port, dagster_port, demo=demo),
        dagster_home=dagster_home,
        host=host,
        port=port,
        dagster_port=dagster_port,
        code_server_port=free_port(),
    )
    asyncio.run(_run(installation, Demo(installation.settings, events) if demo else None))


def _dagster_home() -> Path:
    given = os.environ.get("DAGSTER_HOME")
    home = Path(given) if given else Path("dagster_home").absolute()
    if not home.is_absolute():
        raise SettingsError(f"DAGSTER_HOME is wrong: {home} must be an absolute path.")
    if not (home / "dagster.yaml").is_file():
        raise SettingsError(
            f"There is no {home / 'dagster.yaml'}: start in the project's folder, or set"
            " DAGSTER_HOME to the absolute path of its dagster_home."
        )
    return home


def _settings_in_force(
    settings: Settings, host: str, port: int, dagster_port: int, *, demo: bool
) -> Settings:
    """Return the settings with what follows from the ports, unless the user set it."""
    implied: dict[str, object] = {"public_url": _url(host, port)}
    if demo:
        # Its events never pause; a visitor shall soon see a whole run, with its checks.
        implied["load_max_seconds"] = _DEMO_RUN_SECONDS
    update = {
        name: value for name, value in implied.items() if name not in settings.model_fields_set
    }
    return settings.model_copy(update={**update, "dagster_url": f"http://{_LOCAL}:{dagster_port}"})


def _url(host: str, port: int) -> str:
    reachable = _LOCAL if host in _ANY_HOST else host
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"


async def _run(installation: _Installation, demo: Demo | None) -> None:
    """Start everything, and stop it on a signal, an error or the death of a process."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Set before any process starts: they would inherit that a signal is to be ignored.
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    processes = Processes(installation.settings.home / "logs", installation.environment)
    tasks = [
        asyncio.create_task(stopping.wait()),
        asyncio.create_task(processes.watch()),
        asyncio.create_task(_serve(installation, processes, demo)),
    ]
    addresses = installation.settings.addresses_file
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        click.echo("Stopping.")
        addresses.unlink(missing_ok=True)
        await processes.stop()


async def _serve(installation: _Installation, processes: Processes, demo: Demo | None) -> None:
    """Start everything and say where it is; never return."""
    if demo is not None:
        demo.prepare()  # before Dagster looks for integrations
    receiver = _url(installation.host, installation.port)
    settings = installation.settings
    addresses = {"public_url": settings.public_url, "dagster_url": settings.dagster_url}
    settings.home.mkdir(parents=True, exist_ok=True)
    settings.addresses_file.write_text(json.dumps(addresses))
    click.echo("Starting the receiver and Dagster, which takes some seconds.")
    _start_receiver(installation, processes)
    try:
        async with asyncio.TaskGroup() as tasks:
            dagster = tasks.create_task(_start_dagster(installation, processes))
            await wait_until_ok(f"{receiver}/health/ready", _READY_SECONDS)
            if demo is not None:
                tasks.create_task(demo.send())
            await dagster
            click.echo(f"Receiver     {receiver}")
            click.echo(f"Dagster      {installation.settings.dagster_url}")
            _print_page(settings)
            click.echo(f"Data         {installation.settings.home}")
            click.echo("Ctrl-C stops everything.")
            if demo is not None:
                await demo.show_first_rows()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the others followed from it
    await asyncio.Event().wait()


def _print_page(settings: Settings) -> None:
    """Say where the management page is and, the first time, how to get in."""
    if not settings.admin_port:  # off, or any free one, which only the log tells
        return
    click.echo(f"Management   {_url(settings.admin_host, settings.admin_port)}")
    with closing(Registry.open(settings.registry)) as registry:
        password = make_first_password(settings, registry.admin)
    if password is not None:
        click.echo(f"Password     {password} (shown only now)")


def _start_receiver(installation: _Installation, processes: Processes) -> None:
    command = [str(_BIN / "customerio-pipeline"), "receiver"]
    options = [f"--host={installation.host}", f"--port={installation.port}"]
    processes.start("receiver", [*command, *options], _LONG_GRACE_SECONDS)


async def _start_dagster(installation: _Installation, processes: Processes) -> None:
    """Start one code server for webserver and daemon: one reload reaches both."""
    location = {"host": _LOCAL, "port": installation.code_server_port, "location_name": LOCATION}
    installation.workspace.parent.mkdir(parents=True, exist_ok=True)
    installation.workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))
    dagster = str(_BIN / "dagster")
    # Two processes that begin on an empty SQLite storage at once fail on each other's tables, and
    # the code server opens it, too.
    await processes.run("dagster-instance", [dagster, "instance", "info"])
    processes.start(
        "code-server",
        [
            *(dagster, "code-server", "start", "-m", "customerio_pipeline.definitions"),
            f"--host={_LOCAL}",
            f"--port={installation.code_server_port}",
            f"--location-name={LOCATION}",
        ],
        _LONG_GRACE_SECONDS,
    )
    await wait_until_listening(_LOCAL, installation.code_server_port, _READY_SECONDS)
    workspace = f"--workspace={installation.workspace}"
    webserver = [str(_BIN / "dagster-webserver"), workspace, f"--host={_LOCAL}"]
    processes.start("webserver", [*webserver, f"--port={installation.dagster_port}"])
    daemon = [str(_BIN / "dagster-daemon"), "run", workspace]
    processes.start("daemon", [*daemon, "--log-level=warning"])
    await wait_until_ok(f"{installation.settings.dagster_url}/server_info", _READY_SECONDS)
