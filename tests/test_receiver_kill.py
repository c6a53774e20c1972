"""A short run of the campaign of kills; `make crash-test` is the long one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SEED = 5


def test_killed_anywhere_everything_acknowledged_is_landed_once(tmp_path: Path) -> None:
    """Kill -9 of worker, sealer, parent under load: every byte acknowledged is landed, once."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash", "--kills=2", "--cuts=0"),
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
            *(sys.executable, "-m", "campaigns.receiver_crash", "--kills=0", "--cuts=20"),
            "--control=no sync at all",
            *(f"--seed={SEED}", f"--folder={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("| control: ") == 1
