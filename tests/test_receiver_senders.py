"""Who may send, over which transport: networks, proxies, TLS, and a socket of systemd's."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    running_receiver,
)


@pytest.mark.parametrize(
    ("allowed", "proxies", "statuses"),
    [
        # Nobody trusted wrote the header.
        ("10.0.0.0/8", "", {None: 403, "10.1.2.3": 403}),
        ("192.0.2.0/24, 127.0.0.1", "", {None: 200, "10.1.2.3": 200}),
        (
            "10.0.0.0/8,2001:db8::/32",
            "127.0.0.0/8",
            {
                "10.1.2.3": 200,
                "2001:db8::1": 200,
                "192.0.2.1": 403,
                # The client made up what stands further left.
                "10.1.2.3, 192.0.2.1": 403,
                "192.0.2.1, 10.1.2.3, 127.0.0.2": 200,
                "nonsense": 403,
                None: 403,
            },
        ),
    ],
)
def test_only_allowed_networks_may_send(
    tmp_path: Path, allowed: str, proxies: str, statuses: dict[str | None, int]
) -> None:
    """Others get 403 with a valid URL, too; what X-Forwarded-For says counts behind a proxy."""
    url = create_integration(tmp_path, "networks")
    with running_receiver(tmp_path, allow_networks=allowed, trusted_proxies=proxies) as receiver:
        for forwarded, status in statuses.items():
            headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
            assert receiver.post(url.token, **headers).status_code == status, forwarded
        if 403 in statuses.values():
            assert receiver.wait_logged("request", status=403, url_id=None)["client"]


def make_certificate(folder: Path, name: str) -> None:
    """Make the files of a certificate that signs itself."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", f"/CN={name}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )


def served_name(port: int, trusted: str) -> object:
    """Return the subject of the certificate that is served, verified against `trusted`."""
    context = ssl.create_default_context(cadata=trusted)
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as plain,
        context.wrap_socket(plain) as secure,
    ):
        return secure.getpeercert()["subject"][0][0][1]  # type: ignore[index]


def test_tls_and_a_renewed_certificate(tmp_path: Path) -> None:
    """Deliveries over TLS; clients that never shake hands harm nobody; SIGHUP renews."""
    url = create_integration(tmp_path, "tls")
    make_certificate(tmp_path, "old.example")
    receiver = Receiver(
        tmp_path, tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem"
    )
    try:
        port = receiver.port
        assert served_name(port, (tmp_path / "cert.pem").read_text()) == "old.example"
        silent = [
            socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) for _ in range(100)
        ]
        silent[0].sendall(b"POST / HTTP/1.1\r\n\r\n")
        with httpx.Client(verify=False) as client:  # noqa: S501  signed by itself
            target = f"https://127.0.0.1:{port}/v1/webhooks/{url.token}"
            for size in (0, 1_000, 1_000_000):
                assert client.post(target, content=bytes(size)).status_code == 200
        for connection in silent:
            connection.close()

        (tmp_path / "key.pem").write_text("no key")
        receiver.process.send_signal(signal.SIGHUP)
        assert "belong together" in receiver.wait_logged("reload_refused")["reason"]
        make_certificate(tmp_path, "new.example")
        receiver.process.send_signal(signal.SIGHUP)
        receiver.wait_logged("reloaded")
        assert served_name(port, (tmp_path / "cert.pem").read_text()) == "new.example"
    finally:
        receiver.kill_everything()


def test_a_certificate_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    """The command does not start."""
    (tmp_path / "cert.pem").write_text("no certificate")
    for key in ("missing.pem", "cert.pem"):
        receiver = Receiver(tmp_path, tls_certificate=tmp_path / "cert.pem", tls_key=tmp_path / key)
        assert receiver.process.wait(PATIENCE_SECONDS) == 1
        assert receiver.output.startswith("Error: ")
        assert receiver.output.count("\n") == 1
        receiver.kill_everything()


# Does as systemd does: descriptor 3, and the process that becomes the receiver is the one named.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_socket_of_systemd_is_taken(tmp_path: Path, count: int) -> None:
    """One is served, and systemd is told when it is ready; several are refused."""
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "notify"))
    notices.settimeout(PATIENCE_SECONDS)
    command = str(Path(sys.executable).with_name("customerio-pipeline"))
    with notices, socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", ACTIVATE, str(listener.fileno()), str(count)),
                *(command, "receiver"),
            ],
            env=os.environ
            | {"CUSTOMERIO_HOME": str(tmp_path), "NOTIFY_SOCKET": str(tmp_path / "notify")},
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        if count == 1:
            assert notices.recv(100) == b"READY=1"
            health = f"http://127.0.0.1:{listener.getsockname()[1]}/health/live"
            with httpx.Client(verify=False) as client:  # noqa: S501  no TLS, and quicker
                assert client.get(health).status_code == 200
            process.terminate()
            assert notices.recv(100) == b"STOPPING=1"
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == (0 if count == 1 else 1)
        assert count == 1 or errors.startswith("Error: systemd passed 2 sockets")
