"""A short run of the crash campaign; `make crash-test-load` is the long one."""

import subprocess
import sys
from pathlib import Path

SEED = 11


def test_killed_anywhere_the_next_load_makes_it_right(tmp_path: Path) -> None:
    """Killed while it makes, sets aside, alters, merges, commits or copies: as the oracle says."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.load_crash", "--no-disks", "--kills", "3"),
            *("--seed", str(SEED), "--folder", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert "| **all** | 3 | 0 |" in result.stdout
    assert result.returncode == 0, result.stdout
