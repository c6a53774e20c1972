"""``deploy/docker``: what the tools of its formats say, and its services run for real.

There is no Docker where these tests run, so each service's command runs here, with the environment,
secrets and health check of the compose file, against a PostgreSQL of its own.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml

from customerio_pipeline.cli.processes import free_port
from tests.deployed_services import (
    BIN,
    DEPLOY,
    PROJECT,
    Service,
    check_event_reaches_table,
    running_services,
)
from tests.postgres_server import OwnPostgres

DOCKER = DEPLOY / "docker"
DOCKERFILE = DOCKER / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.mark.skipif(not (BIN / "hadolint").exists(), reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    """Of the Dockerfile."""
    linted = subprocess.run(
        [BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert (linted.stdout, linted.returncode) == ("", 0)


def test_the_compose_file_is_of_the_specification() -> None:
    """By the schema that the specification comes with."""
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*check, DOCKER / "compose.yaml"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_only_webhooks_are_published_beyond_this_machine() -> None:
    """The web UI has no sign-in, metrics ask for no password, PostgreSQL is nobody's business."""
    published = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == ["8080:8080"]


def test_no_service_may_do_more_than_it_needs() -> None:
    """Whatever else is added."""
    for name, service in COMPOSE["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
    assert re.search(r"(?m)^USER 10001:10001$", DOCKERFILE.read_text())


def test_all_that_is_copied_into_the_image_is_let_through() -> None:
    """The .dockerignore keeps everything else out; a new folder has to be named in it."""
    allowed = re.findall(r"(?m)^!(.+)$", (PROJECT / ".dockerignore").read_text())
    copied = re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text())
    sources = {source for line in copied for source in line.split()}
    assert sources == set(allowed)
    assert all((PROJECT / source).exists() for source in sources)


def test_the_services_carry_an_event_into_the_table(
    own_server: OwnPostgres, tmp_path: Path
) -> None:
    """All of them, begun in the order in which they depend on each other."""
    ports = {inner: free_port() for inner in (8080, 4266, 3000)}
    databases = _databases(own_server)
    (tmp_path / "settings.env").write_text(
        f"CUSTOMERIO_WAREHOUSE={databases['analytics']}\n"
        f"CUSTOMERIO_REGISTRY={databases['registry']}\n"
        f"CUSTOMERIO_DAGSTER_POSTGRES_URL={databases['dagster']}\n"
        "CUSTOMERIO_ADMIN_PORT=off\n"
    )
    places = _places(tmp_path, ports)
    with running_services(tmp_path) as services:
        started: list[str] = []
        while left := [name for name in COMPOSE["services"] if name not in ["postgres", *started]]:
            ready = next(name for name in left if _needs(name) <= {"postgres", *started})
            services.start(_service(ready, places))
            started.append(ready)
        check_event_reaches_table(services, _service("receiver", places), ports[8080])
        for name in reversed(started[1:]):
            services.stop(name)
        assert services.stop("receiver") == 0, services.log("receiver")


def _databases(server: OwnPostgres) -> dict[str, str]:
    """Make the databases as the container does at its first start; return their URLs."""
    names = [COMPOSE["services"]["postgres"]["environment"]["POSTGRES_DB"], "registry", "dagster"]
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {names[0]}".encode())
        for statement in (DOCKER / "postgres" / "databases.sql").read_text().split(";\n"):
            connection.execute(statement.encode())
    return {
        name: sa.make_url(server.url).set(database=name).render_as_string(hide_password=False)
        for name in names
    }


def _places(folder: Path, ports: Mapping[int, int]) -> dict[str, str]:
    """Return what stands in the files, and what it is on this machine."""
    workspace = (DEPLOY / "workspace.yaml").read_text().replace("4266", str(ports[4266]))
    (folder / "workspace.yaml").write_text(workspace)
    (folder / "dagster_home").mkdir()
    shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", folder / "dagster_home")
    return {
        "/opt/customerio-pipeline/deploy/workspace.yaml": f"{folder}/workspace.yaml",
        "/opt/customerio-pipeline/dagster_home": f"{folder}/dagster_home",
        "/var/lib/customerio-pipeline": f"{folder}/home",
        "/run/secrets": str(folder),
        "dagster-webserver:3000": f"127.0.0.1:{ports[3000]}",
        "127.0.0.1:3000": f"127.0.0.1:{ports[3000]}",
        "127.0.0.1:8080": f"127.0.0.1:{ports[8080]}",
        "--host=0.0.0.0": "--host=127.0.0.1",
        **{f"--port={inner}": f"--port={outer}" for inner, outer in ports.items()},
    }


def _needs(name: str) -> set[str]:
    return set(COMPOSE["services"][name].get("depends_on", ()))


def _service(name: str, places: Mapping[str, str]) -> Service:
    described = COMPOSE["services"][name]
    image = DOCKERFILE.read_text()
    image_environment = dict(re.findall(r"(?m)^ +(\w+_HOME)=(\S+)", image))
    # As in the network of the containers, where a service's name is its host's.
    environment = described["environment"] | (
        {"DAGSTER_CODE_SERVER_HOST": "127.0.0.1"} if "workspace" in str(described) else {}
    )
    check = described.get("healthcheck", {}).get("test") or [
        "CMD",
        *json.loads(re.findall(r"(?m)^ +CMD (\[.*\])$", image)[0]),
    ]

    def here(text: str) -> str:
        for place, replacement in places.items():
            text = text.replace(place, replacement)
        return text

    return Service(
        name,
        [here(word) for word in described["command"]],
        {key: here(value) for key, value in (image_environment | environment).items()},
        after=[[here(word) for word in check[1:]]],
    )
