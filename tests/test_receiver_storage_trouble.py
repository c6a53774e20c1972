"""When a delivery cannot be stored: 503, readiness says why, and recovery without a restart."""

import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.running_receiver import (
    Receiver,
    create_integration,
    landed_rows,
    running_receiver,
    wait_landed,
    wait_until,
)


def check_refusal(response: httpx.Response) -> None:
    """Make sure that the sender is told to come back."""
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "repeat" in response.json()["error"]


def wait_for_reason(receiver: Receiver, check: str) -> str:
    """Wait until readiness says what is wrong with `check`, and return it."""

    def reason() -> str | None:
        response = receiver.readiness()
        found = response.json()["checks"][check]
        assert (response.status_code == 200) is response.json()["ready"]
        return None if found["ok"] else found["reason"]

    return wait_until(reason, f"{check} is not ready") or ""


def test_a_landing_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Replaced by a file: 503 and the reason; put back: 200, and what waited is landed."""
    url = create_integration(tmp_path, "landing")
    with running_receiver(tmp_path) as receiver:
        assert receiver.post(url.token, b"before").status_code == 200
        wait_landed(receiver.landing, "landing", 1)
        kept = receiver.landing.rename(tmp_path / "kept")
        receiver.landing.write_text("a file is in the way")
        check_refusal(receiver.post_until(503, url.token, b"meanwhile"))
        assert wait_for_reason(receiver, "landing") == (
            "The landing folder is not usable: it cannot be written: Not a directory."
        )
        assert receiver.wait_logged("request", status=503, reason="landing_not_writable")
        receiver.landing.unlink()
        kept.rename(receiver.landing)
        receiver.post_until(200, url.token, b"after")
        wait_until(
            lambda: landed_rows(receiver.landing, "landing")[-1]["body"] == b"after", "landed"
        )
        acknowledged = len(receiver.logged("request", status=200))
        assert len(landed_rows(receiver.landing, "landing")) == acknowledged
        assert receiver.readiness().status_code == 200


def test_a_spool_that_is_full(tmp_path: Path) -> None:
    """More than the bound waits for sealing: 503 and the reason; sealed: 200."""
    url = create_integration(tmp_path, "full")
    (tmp_path / "landing").mkdir()
    # The sealer fails on the integration's folder, while the landing folder itself is fine.
    blocked = tmp_path / "landing" / "integration=full"
    blocked.write_text("a file is in the way")
    with running_receiver(tmp_path, spool_max_bytes=1024 * 1024) as receiver:
        stored = 0
        while receiver.post(url.token, bytes(200_000)).status_code == 200:
            stored += 1
        assert 1 <= stored <= 6
        check_refusal(receiver.post(url.token))
        reason = wait_for_reason(receiver, "spool")
        assert "wait for sealing and CUSTOMERIO_SPOOL_MAX_BYTES is 1048576" in reason
        line = receiver.wait_logged("sealing_failed")
        assert line["reason"].startswith("Not a directory: ")
        blocked.unlink()
        receiver.post_until(200, url.token)
        wait_landed(receiver.landing, "full", stored + 1)


def test_a_disk_with_too_little_room(tmp_path: Path) -> None:
    """Less free space than the floor: 503 before a write could fail, and the reason."""
    url = create_integration(tmp_path, "low")
    floor = shutil.disk_usage(tmp_path).total + 1
    receiver = Receiver(tmp_path, spool_min_free_bytes=floor)
    try:
        reason = wait_for_reason(receiver, "spool")
        assert f"CUSTOMERIO_SPOOL_MIN_FREE_BYTES is {floor}" in reason
        check_refusal(receiver.post(url.token))
        assert receiver.wait_logged("request", reason="disk_low", url_id=url.id)
    finally:
        receiver.kill_everything()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # noqa: S607


@pytest.mark.parametrize("floor", [4 * 1024 * 1024, 0], ids=["floor", "no floor"])
def test_a_disk_that_fills_up_and_gets_room_again(small_disk: Path, floor: int) -> None:
    """Full: 503, at the floor or in the midst of a write; room again: 200 without a restart."""
    url = create_integration(small_disk, "disk")
    with running_receiver(small_disk, spool_min_free_bytes=floor) as receiver:
        assert receiver.post(url.token, b"before").status_code == 200
        with (small_disk / "filling").open("wb", buffering=0) as filling, suppress(OSError):
            while not floor or shutil.disk_usage(small_disk).free > floor // 2:
                filling.write(bytes(65536))
        # Small ones find the floor before the disk is full, however late it is looked at.
        check_refusal(receiver.post_until(503, url.token, bytes(1000 if floor else 100_000)))
        stopped = wait_for_reason(receiver, "spool")
        assert ("SPOOL_MIN_FREE_BYTES" in stopped) is bool(floor)
        (small_disk / "filling").unlink()
        receiver.post_until(200, url.token, b"after")
        rows = wait_landed(receiver.landing, "disk", 2)
        assert rows[0]["body"] == b"before"
        wait_until(lambda: landed_rows(receiver.landing, "disk")[-1]["body"] == b"after", "landed")
        assert len(receiver.pids("worker")) == len(receiver.pids("sealer")) == 1


def test_a_write_that_fails_in_the_middle(tmp_path: Path) -> None:
    """A short write (a file size limit) is refused; a new segment follows, no offset is lost."""
    url = create_integration(tmp_path, "short")
    bodies = [bytes([at]) * 60_000 for at in range(12)]
    with running_receiver(tmp_path, seal_after_seconds=60) as receiver:
        [worker] = receiver.pids("worker")
        _, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (200_000, hard))
        statuses = []
        for body in bodies:
            response = receiver.post(url.token, body)
            statuses.append(response.status_code)
            if response.status_code == 503:
                check_refusal(response)
                receiver.wait_ready()
        assert statuses[:4] == [200, 200, 200, 503]
        assert statuses.count(503) >= 2
        assert receiver.wait_logged("spool_not_writable")
        assert receiver.pids("worker") == [worker]
        assert receiver.stop() == 0
    acknowledged = [body for body, status in zip(bodies, statuses, strict=True) if status == 200]
    rows = wait_landed(tmp_path / "landing", "short", len(acknowledged))
    assert [row["body"] for row in rows] == acknowledged


def test_a_registry_that_cannot_be_read(tmp_path: Path) -> None:
    """At the start: 503, never the 401 that costs an hour; later: known URLs go on working."""
    registry = tmp_path / "registry.sqlite"
    registry.write_text("no database" * 100)
    receiver = Receiver(tmp_path)
    try:
        assert wait_for_reason(receiver, "registry").startswith("The registry is not usable: ")
        check_refusal(receiver.post("whatever"))
        registry.unlink()
        url = create_integration(tmp_path, "unreadable")
        receiver.post_until(200, url.token)

        rename_table(registry, "registry_state", "away")
        wait_for_reason(receiver, "registry")
        assert receiver.post(url.token).status_code == 200
        check_refusal(receiver.post("perhaps a new one"))
        assert receiver.wait_logged("request", reason="registry_unreadable")

        rename_table(registry, "away", "registry_state")
        receiver.wait_ready()
        assert receiver.post("not a new one").status_code == 401
    finally:
        receiver.kill_everything()


def rename_table(database: Path, old: str, new: str) -> None:
    """Rename a table under the feet of those who read it."""
    with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
