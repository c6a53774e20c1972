"""Deaths, restarts and upgrades under a steady load: the port never refuses (design C7)."""

import os
import resource
import signal
import socket
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    running_receiver,
    wait_landed,
    wait_until,
)
from tests.steady_load import SteadyLoad


def check_landed(load: SteadyLoad, home: Path, schema: str) -> None:
    """Make sure that everything acknowledged is landed once, and nothing that was not sent."""
    rows = wait_landed(home / "landing", schema, len(load.acknowledged))
    landed = Counter(row["body"] for row in rows)
    assert set(landed.values()) == {1}
    assert set(load.acknowledged) <= landed.keys() <= load.sent


def wait_for_answers(load: SteadyLoad, count: int) -> None:
    """Wait until so many more requests are answered."""
    enough = load.statuses.total() + count
    wait_until(lambda: load.statuses.total() >= enough, f"{count} more answers")


def test_a_killed_worker_breaks_only_what_it_held(tmp_path: Path) -> None:
    """With kill -9 of one of two workers, then the other: nothing is refused, no 5xx."""
    url = create_integration(tmp_path, "killed")
    with running_receiver(tmp_path, "--port=0", "--workers=2", access_log=False) as receiver:
        load = SteadyLoad(url.token, receiver.port)

        def kill() -> None:
            for victim in receiver.pids("worker"):
                wait_for_answers(load, 50)
                os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(receiver.pids("worker")) == 4, "replacements")
            wait_for_answers(load, 200)

        load.run_while(kill)
        assert set(load.statuses) == {200}
        # At most one request of each client, for each of the two.
        assert len(load.broken) <= 2 * 20
        assert not [error for error in load.broken if "ConnectionRefused" in error]
        check_landed(load, tmp_path, "killed")


def test_a_rolling_restart_is_not_noticed(tmp_path: Path) -> None:
    """SIGHUP: new workers serve before the old ones drain; every request gets its 200."""
    url = create_integration(tmp_path, "rolling")
    with running_receiver(tmp_path, "--port=0", "--workers=2", access_log=False) as receiver:
        load = SteadyLoad(url.token, receiver.port)

        def reload() -> None:
            wait_for_answers(load, 50)
            receiver.process.send_signal(signal.SIGHUP)
            receiver.wait_logged("reloaded")
            wait_for_answers(load, 50)

        load.run_while(reload)
        assert load.broken == []
        assert set(load.statuses) == {200}
        # Kept connections learned from an answer that they end.
        assert load.last_answers >= 1
        assert len(receiver.pids("worker")) == 4
        assert len(receiver.pids("sealer")) == 2
        assert not receiver.logged("ended_unasked")
        check_landed(load, tmp_path, "rolling")


@pytest.mark.parametrize("is_old_one_gone_first", [False, True])
def test_an_upgrade_of_the_parent_is_not_noticed(
    tmp_path: Path, is_old_one_gone_first: bool
) -> None:
    """Another parent takes the same socket while the old one drains, or after it (systemd)."""
    url = create_integration(tmp_path, "upgraded")
    # Connections that wait while nobody serves them stay in the backlog.
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        fd = listener.fileno()
        load = SteadyLoad(url.token, listener.getsockname()[1])
        options = (f"--fd={fd}",)
        with running_receiver(tmp_path, *options, pass_fds=[fd], access_log=False) as old:
            successors: list[Receiver] = []

            def upgrade() -> None:
                wait_for_answers(load, 50)
                if is_old_one_gone_first:
                    assert old.stop() == 0
                new = Receiver(tmp_path, *options, pass_fds=[fd], access_log=False)
                successors.append(new)
                new.wait_ready()
                if not is_old_one_gone_first:
                    assert old.stop() == 0
                wait_for_answers(load, 50)

            try:
                load.run_while(upgrade)
                check_landed(load, tmp_path, "upgraded")
            finally:
                for new in successors:
                    new.kill_everything()
    assert load.broken == []
    assert set(load.statuses) == {200}


def test_a_request_on_a_kept_connection_is_answered_while_draining(tmp_path: Path) -> None:
    """Its sender could not know; the answer says that the connection ends."""
    url = create_integration(tmp_path, "kept")
    with running_receiver(tmp_path) as receiver:
        kept = HTTPConnection("127.0.0.1", receiver.port, timeout=PATIENCE_SECONDS)

        def answer() -> str | None:
            kept.request("POST", f"/v1/webhooks/{url.token}", b"{}")
            response = kept.getresponse()
            assert (response.status, response.read()) == (200, b'{"status":"stored"}')
            return response.headers["connection"]

        assert answer() is None
        receiver.process.send_signal(signal.SIGTERM)
        assert wait_until(answer, "the last answer") == "close"
        assert receiver.process.wait(PATIENCE_SECONDS) == 0


def test_a_reload_takes_the_settings_of_now(tmp_path: Path) -> None:
    """From the file that CUSTOMERIO_ENV_FILE names; with a wrong one the old workers go on."""
    url = create_integration(tmp_path, "settings")
    env_file = tmp_path / "receiver.env"
    env_file.write_text("CUSTOMERIO_MAX_BODY_BYTES=2000\n")
    with running_receiver(tmp_path, env_file=env_file) as receiver:
        assert receiver.post(url.token, bytes(3000)).status_code == 413

        env_file.write_text("CUSTOMERIO_MAX_BODY_BYTES=much\n")
        receiver.process.send_signal(signal.SIGHUP)
        refused = receiver.wait_logged("reload_refused")
        assert "CUSTOMERIO_MAX_BODY_BYTES is wrong" in refused["reason"]
        assert receiver.post(url.token, bytes(1000)).status_code == 200

        env_file.write_text("CUSTOMERIO_MAX_BODY_BYTES=4000\n")
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_logged("reloaded")
        assert receiver.post(url.token, bytes(3000)).status_code == 200


def test_a_reload_whose_workers_cannot_begin_keeps_the_old_ones(tmp_path: Path) -> None:
    """Here the parent may open no more files; nobody notices, and the next reload works."""
    url = create_integration(tmp_path, "no_files")
    with running_receiver(tmp_path) as receiver:
        parent = receiver.process.pid
        soft, hard = resource.prlimit(parent, resource.RLIMIT_NOFILE)
        resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, hard))
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_logged("reload_failed")
        resource.prlimit(parent, resource.RLIMIT_NOFILE, (soft, hard))
        assert receiver.post(url.token).status_code == 200
        assert len(receiver.pids("worker")) == 1

        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_logged("reloaded")
        assert receiver.post(url.token).status_code == 200
