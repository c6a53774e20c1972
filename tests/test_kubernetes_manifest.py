"""``deploy/kubernetes``: Kubernetes' own schemas take it, and it runs what compose runs."""

import re
import subprocess
from typing import Any

import yaml

from tests.deployed_services import BIN, DEPLOY

MANIFEST = DEPLOY / "kubernetes" / "customerio-pipeline.yaml"
RESOURCES: list[dict[str, Any]] = list(yaml.safe_load_all(MANIFEST.read_text()))


def _pods() -> dict[str, dict[str, Any]]:
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in RESOURCES
        if "template" in each["spec"]
    }


def test_kubernetes_takes_every_resource() -> None:
    """No field is unknown or of a wrong type, in an old version and in a new one."""
    for version in ("1.31", "1.37"):
        command = [BIN / "kubernetes-validate", "--strict", "-k", version, MANIFEST]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_containers_run_what_compose_runs() -> None:
    """Those commands are run for real (test_containers.py)."""
    services = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]
    pods = _pods()
    assert pods.keys() == services.keys() - {"postgres"}
    for name, pod in pods.items():
        [container] = pod["containers"]
        assert container["args"] == services[name]["command"]
        assert container.get("command") == services[name].get("entrypoint")


def test_every_pod_is_confined_and_every_volume_is_there() -> None:
    """What is mounted is declared, and nothing runs as root or may write its root."""
    claimed = {
        claim["metadata"]["name"]
        for each in RESOURCES
        for claim in each["spec"].get("volumeClaimTemplates", ())
    }
    for pod in _pods().values():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        volumes = {volume["name"] for volume in pod["volumes"]} | claimed
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_services_find_the_pods() -> None:
    """By their labels and the ports that the commands name."""
    pods = _pods()
    for each in RESOURCES:
        if each["kind"] == "Service":
            [container] = pods[each["spec"]["selector"]["app"]]["containers"]
            [port] = each["spec"]["ports"]
            assert str(port["port"]) in re.findall(r"--port=(\d+)", " ".join(container["args"]))
