"""The admin port: metrics and health of all workers, and a receiver that needs neither."""

import os
import re
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    running_receiver,
    wait_landed,
    wait_until,
)

_SAMPLE = re.compile(r'customerio_receiver_(\w+(?:\{\w+="[^"]*"\})?) (-?[0-9.e+-]+)')


def admin_url(receiver: Receiver) -> str:
    """Return where the newest admin process listens."""
    port = receiver.logged("admin_listening")[-1]["port"]
    return f"http://127.0.0.1:{port}"


def scrape(receiver: Receiver) -> dict[str, float]:
    """Return the samples by name and label, each line checked."""
    response = receiver.http.get(f"{admin_url(receiver)}/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = {}
    for line in response.text.splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            samples[match[1]] = float(match[2])
    return samples


def test_everything_is_counted_over_all_workers_and_their_deaths(tmp_path: Path) -> None:
    """Accepted, refused, sealed; the same totals after kill -9 of a worker; none on the webhook."""
    url = create_integration(tmp_path, "counted")
    options = ("--port=0", "--workers=2")
    with running_receiver(tmp_path, *options, admin_port=0, max_body_bytes=1024) as receiver:
        receiver.wait_logged("admin_listening")
        for _ in range(20):
            assert receiver.post(url.token, b"0123456789").status_code == 200
        assert receiver.post("unknown").status_code == 401
        assert receiver.post(url.token, bytes(2000)).status_code == 413
        assert receiver.http.get(f"{receiver.base_url}/metrics").status_code == 404
        wait_landed(receiver.landing, "counted", 20)
        before = wait_until(lambda: _when_sealed(receiver, 20), "all is counted as sealed")

        os.kill(receiver.pids("worker")[0], signal.SIGKILL)
        wait_until(lambda: scrape(receiver)["worker_starts_total"] == 3, "it is replaced")
        receiver.post_until(200, url.token, b"01234")
        after = scrape(receiver)

    assert before["accepted_bytes_total"] == 200
    assert before["workers"] == 2
    assert before['refused_total{reason="unauthorized"}'] == 1
    assert before['refused_total{reason="request_entity_too_large"}'] == 1
    assert before['refused_total{reason="disk_low"}'] == 0
    assert before['ack_seconds_bucket{le="+Inf"}'] == before["ack_seconds_count"] == 20
    assert 0 < before["sync_seconds_sum"] < before["ack_seconds_sum"] < 20 * 60
    assert before["batch_deliveries_sum"] == 20
    assert before["sealed_files_total"] >= 1
    assert before["spool_bytes"] == before["spool_oldest_seconds"] == before["spool_segments"] == 0
    assert after["accepted_total"] == 21
    assert after["accepted_bytes_total"] == 205


def _when_sealed(receiver: Receiver, deliveries: int) -> dict[str, float]:
    samples = scrape(receiver)
    return samples if samples["sealed_deliveries_total"] == deliveries else {}


def test_what_never_reaches_the_application_is_counted(tmp_path: Path) -> None:
    """No HTTP, too slow, a huge head, too many connections: counted; one line a reason, no more."""
    limits: dict[str, object] = {"request_seconds": 0.3, "max_connections": 3}
    with running_receiver(tmp_path, admin_port=0, **limits) as receiver, ExitStack() as stack:
        receiver.wait_logged("admin_listening")

        def send(data: bytes) -> bytes:
            address = ("127.0.0.1", receiver.port)
            connection = stack.enter_context(socket.create_connection(address, PATIENCE_SECONDS))
            connection.sendall(data)
            return connection.recv(65536)

        for _ in range(5):
            assert send(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert send(b"POST /v1").startswith(b"HTTP/1.1 408 ")
        assert send(b"POST / HTTP/1.1\r\na: " + bytes([97]) * 40_000).startswith(b"HTTP/1.1 431 ")
        stack.close()
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", receiver.port)))
            for _ in range(4)
        ]
        assert idle[0].recv(1) == b""
        samples = scrape(receiver)
        [line] = receiver.logged("turned_away", reason="bad_request")
        assert line["client"] == "127.0.0.1"
        assert receiver.logged("turned_away", reason="request_timeout")
        assert receiver.logged("turned_away", reason="connection_limit")
    assert samples['refused_total{reason="bad_request"}'] == 5
    assert samples['refused_total{reason="request_timeout"}'] == 1
    assert samples['refused_total{reason="request_header_fields_too_large"}'] == 1
    assert samples['refused_total{reason="connection_limit"}'] >= 1
    assert samples['refused_total{reason="pipeline_limit"}'] == 0


def test_health_of_all_and_the_depth_of_the_spool(tmp_path: Path) -> None:
    """A dead sealer shows in the spool's depth, a broken landing folder in health, by its name."""
    url = create_integration(tmp_path, "deep")
    with running_receiver(tmp_path, admin_port=0) as receiver:
        receiver.wait_logged("admin_listening")
        ready = f"{admin_url(receiver)}/health/ready"
        wait_until(lambda: receiver.http.get(ready).status_code == 200, "all is well")
        assert receiver.http.get(f"{admin_url(receiver)}/health/live").status_code == 200

        os.kill(receiver.pids("sealer")[0], signal.SIGSTOP)
        assert receiver.post(url.token, bytes(5000)).status_code == 200
        samples = wait_until(lambda: _when_old(receiver), "the delivery grows old")
        assert samples["spool_bytes"] > 5000
        assert samples["spool_segments"] == 1

        receiver.landing.rename(tmp_path / "elsewhere")
        receiver.landing.write_text("no folder")
        wait_until(lambda: receiver.http.get(ready).status_code == 503, "landing is missed")
        checks = receiver.http.get(ready).json()["checks"]
        assert checks["workers"] == {"ok": True}
        assert checks["landing"] == {
            "ok": False,
            "reason": "The landing folder is not usable: for 1 of 1 workers.",
        }
        assert receiver.post_until(503, url.token)
        samples = scrape(receiver)
        assert samples['refused_total{reason="landing_not_writable"}'] >= 1


def _when_old(receiver: Receiver) -> dict[str, float]:
    samples = scrape(receiver)
    return samples if samples["spool_oldest_seconds"] > 0.3 else {}


def test_the_receiver_needs_no_admin_port(tmp_path: Path) -> None:
    """Taken: one warning, deliveries go on, and it is used once free. Killed: it is replaced."""
    url = create_integration(tmp_path, "independent")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with running_receiver(tmp_path, admin_port=port) as receiver:
            warning = receiver.wait_logged("admin_not_listening")
            assert f"port {port} of 127.0.0.1" in warning["reason"]
            assert "CUSTOMERIO_ADMIN_PORT" in warning["reason"]
            assert receiver.post(url.token).status_code == 200
            taken.close()
            receiver.wait_logged("admin_listening")
            assert len(receiver.logged("admin_not_listening")) == 1

            os.kill(receiver.pids("admin")[0], signal.SIGKILL)
            assert receiver.post(url.token).status_code == 200
            wait_until(lambda: len(receiver.logged("admin_listening")) == 2, "it is replaced")
            wait_until(lambda: _answers(receiver), "it serves")
            assert scrape(receiver)["accepted_total"] == 2
            assert receiver.stop() == 0


def _answers(receiver: Receiver) -> bool:
    try:
        return receiver.http.get(f"{admin_url(receiver)}/health/live").status_code == 200
    except httpx.TransportError:
        return False
