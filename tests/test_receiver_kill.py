"""A short run of the campaign of kills; `make crash-test` is the long one."""

import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.running_receiver import wait_until

SEED = 5


def test_killed_anywhere_everything_acknowledged_is_landed_once(tmp_path: Path) -> None:
    """Kill -9 of worker, sealer, parent under load: every byte acknowledged is landed, once."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash"),
            *("--kills=2", "--cuts=0", "--faults=0"),
            *(f"--seed={SEED}", f"--folder={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 things wrong." in result.stdout


@pytest.mark.skipif(
    not shutil.which("strace"), reason="power cuts need strace (apt install strace)"
)
def test_power_cut_anywhere_and_losses_without_syncs(tmp_path: Path) -> None:
    """Un-synced writes dropped or torn: nothing is lost; with syncs taken away, something is."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash"),
            *("--kills=0", "--cuts=10", "--faults=0"),
            "--control=no sync at all",
            *(f"--seed={SEED}", f"--folder={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("| control: ") == 1


@pytest.mark.parametrize("kind", ["kills", "faults"])
def test_a_campaign_that_is_ended_leaves_nothing_running(tmp_path: Path, kind: str) -> None:
    """SIGTERM to the campaign alone: its receivers end with it, and what they stored is gone."""
    amounts = {"kills": 0, "cuts": 0, "faults": 0} | {kind: 1000}
    if kind != "kills" and not shutil.which("strace"):
        pytest.skip(f"{kind} need strace (apt install strace)")
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash", f"--folder={tmp_path}"),
            *(f"--{name}={amount}" for name, amount in amounts.items()),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as campaign:
        wait_until(lambda: _commands_in(tmp_path), "a receiver begins")
        campaign.terminate()
        assert campaign.wait() == 128 + signal.SIGTERM
    wait_until(lambda: not _commands_in(tmp_path), "nothing is left running")
    assert list(tmp_path.iterdir()) == []


def _commands_in(folder: Path) -> list[str]:
    """Return the commands of the processes of receivers whose data is in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"CUSTOMERIO_HOME={folder}/".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found
