"""What the receiver logs, and that no token is ever in it (design C8)."""

import json
import os
import signal
import socket
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from customerio_pipeline.registry.tokens import hash_token, new_token
from tests.leaked_secrets import leaked_secrets
from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    registry_of,
    running_receiver,
    wait_until,
)


def send_raw(receiver: Receiver, request: bytes) -> bytes:
    """Send bytes as they are, and return what comes back until nothing more does."""
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.sendall(request)
        connection.settimeout(0.3)
        answer = b""
        with suppress(TimeoutError, ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def odd_requests(token: str) -> list[bytes]:
    """Return requests that ask for trouble, each with the token in it."""
    path = f"/v1/webhooks/{token}".encode()
    begin = b" HTTP/1.1\r\nHost: a\r\n"
    head = begin + b"Connection: close\r\n"
    return [
        b"POST " + path + head + b"Content-Length: 2\r\n\r\n{}",
        b"POST " + path + b"?token=" + token.encode() + head + b"Content-Length: 2\r\n\r\n{}",
        b"POST " + path + b"/more" + head + b"Content-Length: 2\r\n\r\n{}",
        b"POST http://a" + path + head + b"Content-Length: 2\r\n\r\n{}",
        b"GET " + path + head + b"\r\n",
        b"CONNECT " + path + head + b"\r\n",
        b"BREW " + path + head + b"\r\n",
        b"POST " + path + b" HTTP/9.9\r\n\r\n",
        b"POST " + path + b"\r\n\r\n",
        b"POST " + path + head + b"Content-Length: nonsense\r\n\r\n",
        b"POST " + path + head + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"POST " + path + begin + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST "
        + path
        + head
        + b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}",
        b"POST " + path + b" HTTP/1.1\r\nHost: \xff<>\r\nContent-Length: 2\r\n\r\n{}",
        b"POST " + path + b"\xc3\xbc%ff%00" + head + b"Content-Length: 2\r\n\r\n{}",
        b"POST /health/ready" + path + head + b"Content-Length: 2\r\n\r\n{}",
        b"POST /" + token.encode() + head + b"Content-Length: 2\r\n\r\n{}",
        b"GET /health/live?" + token.encode() + head + b"\r\n",
        b"POST " + path + head + b"Content-Length: 99999999999\r\n\r\n",
        b"\x16\x03\x01" + path,
    ]


def test_no_token_is_logged_whatever_comes(tmp_path: Path) -> None:
    """Odd requests, deaths and errors leave no token in any output; the URL's id stands for it."""
    url = create_integration(tmp_path, "odd")
    with running_receiver(tmp_path) as receiver:
        answers = [send_raw(receiver, request) for request in odd_requests(url.token)]
        assert answers[0].startswith(b"HTTP/1.1 200 ")
        assert not [answer for answer in answers if answer.startswith(b"HTTP/1.1 500 ")]
        assert not [answer for answer in answers if url.token.encode() in answer]
        (tmp_path / "landing").rename(tmp_path / "away")
        (tmp_path / "landing").write_text("a file is in the way")
        receiver.post_until(503, url.token)
        os.kill(receiver.pids("worker")[0], signal.SIGABRT)
        wait_until(lambda: len(receiver.pids("worker")) == 2, "replacement")
        receiver.post_until(503, url.token)
        assert receiver.stop() == 0
        assert url.id in receiver.output
        assert url.token not in receiver.output
        assert len(receiver.logged("request")) > len(answers) // 2


def test_the_scan_of_logs_finds_every_secret(tmp_path: Path) -> None:
    """Else it would prove nothing: alone, within a line, beside what a token may consist of."""
    with closing(registry_of(tmp_path)) as registry:
        integration, url = registry.create("Shop")
        revoked = registry.generate_url(integration)
        registry.revoke_url(integration, revoked.id)
        registry.keys.add(integration, "a-signing-key-of-some-length")
        token = registry.api_tokens.create("Terraform")
        session = new_token()
        registry.admin.begin_session(hash_token(session), datetime.now(UTC) + timedelta(hours=1))
    assert leaked_secrets(tmp_path, f"nothing here: {new_token()}") == []
    for secret, kind in (
        (url.token, "webhook URL"),
        (f"POST /v1/webhooks/{revoked.token}?a", "webhook URL"),
        (f"ab{token.token}cd", "API token"),
        (f"customerio_session={session};", "session"),
        ("key=a-signing-key-of-some-length", "signing key"),
    ):
        assert leaked_secrets(tmp_path, f'{{"event":"{secret}"}}') == [kind]


def test_a_request_is_one_line(tmp_path: Path) -> None:
    """The URL's id, status, bytes and milliseconds; every line of the log is a JSON object."""
    url = create_integration(tmp_path, "lines")
    with running_receiver(tmp_path) as receiver:
        receiver.post(url.token, b"12345")
        receiver.post("unknown", b"12345")
        assert receiver.stop() == 0
        [stored] = receiver.logged("request", status=200)
        [unknown] = receiver.logged("request", status=401)
        lines = [json.loads(line) for line in receiver.output.splitlines()]
    assert stored["ms"] > 0
    assert {**stored, "ms": 0, "timestamp": ""} == {
        "timestamp": "",
        "level": "info",
        "process": "worker",
        "url_id": url.id,
        "status": 200,
        "bytes": 5,
        "ms": 0,
        "event": "request",
    }
    assert unknown["url_id"] is None
    events = [line["event"] for line in lines]
    assert events[0] == "listening"
    assert events[-1] == "stopped"
    assert not [line for line in lines if line["level"] != "info"]


def test_lines_of_many_requests_at_once_stay_whole(tmp_path: Path) -> None:
    """Each is a line of its own, in whichever worker and however many are written together."""
    url = create_integration(tmp_path, "many")
    request = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}"
    with running_receiver(tmp_path, "--port=0", "--workers=2") as receiver, ExitStack() as stack:
        connections = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS)
            )
            for _ in range(100)
        ]
        for _ in range(3):
            for connection in connections:
                connection.sendall(request.encode())
            for connection in connections:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert receiver.stop() == 0
        assert len(receiver.logged("request", status=200, bytes=2)) == 300
        assert [json.loads(line) for line in receiver.output.splitlines()]


def test_the_line_a_request_can_be_left_out(tmp_path: Path) -> None:
    """CUSTOMERIO_ACCESS_LOG=false keeps everything else."""
    url = create_integration(tmp_path, "quiet")
    with running_receiver(tmp_path, access_log=False) as receiver:
        assert receiver.post(url.token).status_code == 200
        assert receiver.stop() == 0
        assert not receiver.logged("request")
        assert receiver.logged("sealed")
