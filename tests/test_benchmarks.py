"""``python -m benchmarks`` works: with tiny sizes, its figures are not looked at."""

import os
import signal
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# In the environment of every process that a test starts, directly or not.
_MARK = "BENCHMARKS_TEST"


def _start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", f"--folder={folder}", *options],
        cwd=PROJECT,
        env=os.environ | {_MARK: str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"{_MARK}={folder}".encode() in environment:
                found.append(entry.name)
    return found


def test_a_table_is_printed_and_nothing_is_left(tmp_path: Path) -> None:
    """Machine and figures in one Markdown table; folder and processes are gone."""
    # Without the peers, whose packages are an extra, and those parts that take longer to begin.
    options = ("--only=compare", "--warehouse=duckdb", "--events=300")
    sides = ("--side=ours", "--side=json-transform")
    figures = ("customerio-pipeline, measured first", "limit: `json_transform`")
    with _start(tmp_path, *options, *sides) as process:
        printed, progress = process.communicate()

    assert process.returncode == 0, progress
    lines = printed.splitlines()
    assert lines[1] == "| --- | --- | --- | --- |"
    assert all(line.count("|") == 5 for line in lines)
    machine = ("Processor", "Memory", "Python", "Packages", "Revision", "`fdatasync` of 2 KB")
    for name in (*machine, *figures):
        assert any(line.startswith(f"| {name}") for line in lines), name
    assert list(tmp_path.iterdir()) == []
    assert _processes_of(tmp_path) == []


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """In the midst of the work the folder is removed and no process goes on."""
    with _start(tmp_path, "--only=load", "--warehouse=duckdb", "--events=100000") as process:
        assert process.stderr is not None
        assert any("Simulating" in line for line in process.stderr)
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate()

    assert process.returncode == 1
    assert printed == ""
    assert list(tmp_path.iterdir()) == []
    assert _processes_of(tmp_path) == []
