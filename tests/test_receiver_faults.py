"""System calls that fail under a running receiver; `make crash-test` lets each one fail."""

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from campaigns.failing_calls import INJECTED, failing, why_impossible
from tests.spool_contents import journal_with

SKIPPED = why_impossible()

pytestmark = pytest.mark.skipif(SKIPPED is not None, reason=f"failing calls: {SKIPPED}")

_SYNC = re.compile(r"\d+ +fsync\(\d+<([^>]*)>\) += (.*)")

SEAL_UNTIL_DONE = """
import sys
from contextlib import suppress
from pathlib import Path
from receiver.logs import configure_logs
from receiver.sealing import seal_once
configure_logs("sealer")
for line in sys.stdin:
    home = Path(line.strip())
    while not list(home.glob("landing/*/*/*/*.parquet")) or list(home.glob("spool/0/*T*.segment")):
        with suppress(OSError):
            seal_once(home / "spool", home / "landing")
    print("done", flush=True)
"""


def test_failing_calls_lose_nothing_and_are_survived(tmp_path: Path) -> None:
    """EIO once, ENOSPC until it ends: 503 at most, nothing lost or double, and no restart."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "campaigns.receiver_crash", "--kills=0", "--cuts=0"),
            *("--faults=1", "--fault=fdatasync", f"--folder={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| worker: fdatasync | 1 | 1 |" in result.stdout
    assert " 0 things wrong." in result.stdout


def test_a_folder_whose_sync_failed_is_synced_later(tmp_path: Path) -> None:
    """Whichever sync of sealing fails, at the end there is none that was never made up for."""
    with subprocess.Popen(
        [sys.executable, "-c", SEAL_UNTIL_DONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as sealing:
        assert sealing.stdin is not None
        assert sealing.stdout is not None
        failed = set()
        for number in range(1, 9):
            home = tmp_path / str(number)
            with closing(journal_with(home / "spool", [[b"one"]])) as journal:
                journal.begin_segment()
            trace = tmp_path / "trace"
            options = ("-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={number}")
            with failing(sealing.pid, trace, options):
                sealing.stdin.write(f"{home}\n")
                sealing.stdin.flush()
                assert sealing.stdout.readline() == "done\n"
            failed |= check_made_up_for(trace)
        sealing.stdin.close()
    assert len(failed) > 4


def check_made_up_for(trace: Path) -> set[str]:
    """Make sure that each path whose sync failed is synced later; return these paths."""
    failed = set()
    missing = set()
    for line in trace.read_text("latin-1").splitlines():
        if sync := _SYNC.match(line):
            path, result = sync.groups()
            if result.endswith(INJECTED):
                failed.add(path)
                missing.add(path)
            else:
                missing.discard(path)
    assert not missing
    return failed
