"""Starting, draining, and the death of any of the receiver's processes (design C7)."""

import os
import signal
import socket
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    landed_rows,
    running_receiver,
    wait_landed,
    wait_until,
)


def is_running(pid: int) -> bool:
    """Tell whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_drain_answers_and_lands_everything(tmp_path: Path) -> None:
    """On SIGTERM a request in flight is finished, all is sealed, and no process is left."""
    url = create_integration(tmp_path, "drain")
    head = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
    with running_receiver(tmp_path, seal_after_seconds=3600) as receiver:
        with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as in_flight:
            in_flight.sendall(head.encode() + b"sec")
            idle = HTTPConnection("127.0.0.1", receiver.port, timeout=PATIENCE_SECONDS)
            idle.request("POST", f"/v1/webhooks/{url.token}", b"first")
            assert idle.getresponse().read() == b'{"status":"stored"}'
            receiver.process.send_signal(signal.SIGTERM)
            # A connection that waits for its next request is closed as soon as draining begins.
            assert idle.sock.recv(1) == b""
            idle.close()
            in_flight.sendall(b"ond")
            answer = b"".join(iter(lambda: in_flight.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert receiver.process.wait(PATIENCE_SECONDS) == 0
        rows = wait_landed(receiver.landing, "drain", 2)
        assert [row["body"] for row in rows] == [b"first", b"second"]
        pids = receiver.pids("worker") + receiver.pids("sealer")
        assert not [pid for pid in pids if is_running(pid)]
        assert not list(tmp_path.glob("spool/*/*.*.segment"))


def test_what_was_stored_is_landed_by_a_sealer_that_has_only_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that is stopped at once waits for its sealer, however slowly that one starts."""
    url = create_integration(tmp_path, "early")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "sitecustomize.py").write_text(
        "import sys, time\nif 'receiver.sealer' in sys.orig_argv: time.sleep(1.5)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    with running_receiver(tmp_path) as receiver:
        assert receiver.post(url.token, b"{}").status_code == 200
        assert receiver.stop() == 0
        assert [row["body"] for row in wait_landed(receiver.landing, "early", 1)] == [b"{}"]


def test_a_drain_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A body that never comes gets a 503 when the time for draining is over."""
    url = create_integration(tmp_path, "slow")
    with running_receiver(tmp_path, drain_seconds=1) as receiver:
        head = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"
        with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as slow:
            slow.sendall(head.encode() + b"sec")
            receiver.post(url.token, b"so that the other one is being read")
            assert receiver.stop() == 0
            assert slow.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert receiver.wait_logged("request", status=503, reason="draining")


def test_ctrl_c_drains_like_sigterm(tmp_path: Path) -> None:
    """SIGINT ends it with exit code 0."""
    with running_receiver(tmp_path) as receiver:
        receiver.process.send_signal(signal.SIGINT)
        assert receiver.process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("child", ["worker", "sealer"])
def test_a_killed_process_is_replaced(tmp_path: Path, child: str) -> None:
    """No connection is refused meanwhile, and the replacement goes on in the same spool slot."""
    url = create_integration(tmp_path, "replaced")
    with running_receiver(tmp_path) as receiver:
        assert receiver.post(url.token, b"before").status_code == 200
        os.kill(receiver.pids(child)[0], signal.SIGKILL)
        assert receiver.post(url.token, b"after").status_code == 200
        wait_until(lambda: len(receiver.pids(child)) == 2, "replacement")
        assert receiver.wait_logged("ended_unasked", child=child, code=-signal.SIGKILL)
        rows = wait_landed(receiver.landing, "replaced", 2)
        assert [row["body"] for row in rows] == [b"before", b"after"]
        assert len({row["writer"] for row in rows}) == 1
        assert sorted(path.name for path in (tmp_path / "spool").iterdir()) == ["0", "sealer.lock"]


def test_the_death_of_the_parent_ends_the_others(tmp_path: Path) -> None:
    """Workers and sealer drain, the port is free again, and nothing stored is lost."""
    url = create_integration(tmp_path, "orphans")
    with running_receiver(tmp_path, seal_after_seconds=3600) as receiver:
        port = receiver.port
        assert receiver.post(url.token, b"stored").status_code == 200
        children = receiver.pids("worker") + receiver.pids("sealer")
        receiver.process.kill()
        # Started at once, as a service manager would; it has to wait for the port.
        with running_receiver(tmp_path, f"--port={port}") as successor:
            wait_until(lambda: not any(map(is_running, children)), "children ended")
            assert successor.post(url.token, b"after").status_code == 200
            rows = wait_landed(successor.landing, "orphans", 2)
            assert {row["body"] for row in rows} == {b"stored", b"after"}


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """The command gives up after its patience, says what to do, and ends with exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        receiver = Receiver(tmp_path, f"--port={port}")
        assert receiver.process.wait(PATIENCE_SECONDS) == 1
        assert receiver.output == (
            f"Error: Port {port} of 127.0.0.1 is taken: stop what uses it, or choose another one "
            "with --port.\n"
        )
        receiver.kill_everything()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--host=192.0.2.1", "cannot listen on port 0 of 192.0.2.1: "),
        ("--host=no.such.host.invalid", "cannot listen on port 0 of no.such.host.invalid: "),
        ("--fd=0", "File descriptor 0 is no listening TCP socket"),
        ("--fd=999", "File descriptor 999 is no listening TCP socket"),
    ],
)
def test_an_impossible_address_is_one_sentence(tmp_path: Path, option: str, sentence: str) -> None:
    """What cannot be listened on is named, without a traceback."""
    receiver = Receiver(tmp_path, "--port=0", option)
    assert receiver.process.wait(PATIENCE_SECONDS) == 1
    assert receiver.output.startswith("Error: ")
    assert sentence in receiver.output
    assert receiver.output.count("\n") == 1
    receiver.kill_everything()


def test_an_inherited_socket_is_served(tmp_path: Path) -> None:
    """With --fd it serves a socket that was listening before; what waited there is answered."""
    url = create_integration(tmp_path, "inherited")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        early = socket.create_connection(listener.getsockname(), PATIENCE_SECONDS)
        early.sendall(
            f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
            "early".encode()
        )
        fd = listener.fileno()
        with running_receiver(tmp_path, f"--fd={fd}", pass_fds=[fd]) as receiver:
            assert receiver.port == listener.getsockname()[1]
            with early:
                assert early.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")
            assert receiver.post(url.token).status_code == 200
            wait_landed(receiver.landing, "inherited", 2)
            assert receiver.stop() == 0
        # It is not ours to close: whoever passed it can start another one on it.
        with socket.create_connection(listener.getsockname(), PATIENCE_SECONDS):
            pass


def test_workers_share_the_load_and_keep_apart(tmp_path: Path) -> None:
    """Each worker has its own slot and writer."""
    url = create_integration(tmp_path, "shared")
    with running_receiver(tmp_path, "--port=0", "--workers=2") as receiver:

        def writers() -> bool:
            for _ in range(20):
                assert receiver.post(url.token).status_code == 200
            return len({row["writer"] for row in landed_rows(receiver.landing, "shared")}) == 2

        wait_until(writers, "both workers landed something")
        count = len(receiver.logged("request", status=200))
        assert len(wait_landed(receiver.landing, "shared", count)) == count
