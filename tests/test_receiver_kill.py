"""A short run of the campaign of kills; `make crash-test` is the long one."""

import subprocess
import sys
from pathlib import Path

SEED = 5


def test_killed_anywhere_everything_acknowledged_is_landed_once(tmp_path: Path) -> None:
    """Kill -9 of worker, sealer, parent under load: every byte acknowledged is landed, once."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash", "--kills=4"),
            *(f"--seed={SEED}", f"--folder={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 things wrong." in result.stdout
