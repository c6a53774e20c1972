"""Every answer of the webhook route, over real sockets, and what it lands."""

import os
import socket
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from customerio_pipeline.registry.records import NewUrl
from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    running_receiver,
    wait_landed,
)

pytestmark = pytest.mark.xdist_group("receiver-answers")

MAX_BODY_BYTES = 1024 * 1024

ODD_BODIES = [
    b"",
    b"{}",
    b"null",
    b"[]",
    b"\x00\xff\xfe binary \r\n\r\n",
    b'{"event_id":',
    b'{"event_id":"one"}',
    b'{"event_id":"\\ud800"}',
    b'{"event_id":7}',
    b'[{"event_id":"a"},{"event_id":"b"}]',
    '{"event_id":"ü-\U0001f600"}'.encode(),
    b'{"event_id":"utf-16"}'.decode().encode("utf-16"),
    b"[" * 5_000,
    bytes(range(256)) * (MAX_BODY_BYTES // 256),
]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One receiver for all tests of this file; each uses an integration of its own."""
    home = tmp_path_factory.mktemp("home")
    with running_receiver(home, max_body_bytes=MAX_BODY_BYTES) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def url(receiver: Receiver) -> NewUrl:
    """The URL of an integration whose landing nobody looks at."""
    return create_integration(receiver.home, "answers")


def test_odd_bodies_are_landed_byte_for_byte(receiver: Receiver) -> None:
    """Whatever the body is, it gets 200 and is landed as it came (design C6)."""
    url = create_integration(receiver.home, "odd_bodies")
    for body in ODD_BODIES:
        response = receiver.post(url.token, body)
        assert (response.status_code, response.json()) == (200, {"status": "stored"})
    rows = wait_landed(receiver.landing, "odd_bodies", len(ODD_BODIES))
    assert [row["body"] for row in rows] == ODD_BODIES


def test_a_delivery_is_landed_with_its_circumstances(receiver: Receiver) -> None:
    """URL, headers, event_id and times stand beside the body (design C1)."""
    url = create_integration(receiver.home, "circumstances")
    before = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Customer.io Web Hooks 1.0",
        "X-CIO-Timestamp": "1613063089",
        "X-CIO-Signature": "ab" * 32,
        "Content-Encoding": "gzip",
    }
    assert receiver.post(url.token, b'{"event_id":"01E4"}', **headers).status_code == 200
    after = datetime.now(UTC)
    [row] = wait_landed(receiver.landing, "circumstances", 1)
    assert before.replace(microsecond=0) <= row["received_at"] <= after
    assert row["_sdc_sequence"] // 1000 == int(row["received_at"].timestamp() * 1_000_000)
    assert row["url_id"] == url.id
    assert row["signature"] == "unchecked"
    assert row["event_id"] == "01E4"
    assert row["content_type"] == "application/json"
    assert row["content_encoding"] == "gzip"
    assert row["user_agent"] == "Customer.io Web Hooks 1.0"
    assert row["x_cio_timestamp"] == "1613063089"
    assert row["x_cio_signature"] == "ab" * 32


@pytest.mark.parametrize("suffix", ["", "/", "?a=b", "/?a=b"])
def test_the_url_may_end_in_a_slash_or_a_query(
    receiver: Receiver, url: NewUrl, suffix: str
) -> None:
    """What people append to a URL does not matter, and never redirects."""
    assert receiver.post(url.token + suffix).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "unknown",
        "",
        "{token}x",
        "x{token}",
        "{token}/x",
        "x%2f..%2f{token}",
        "{token}%2f..",
        "%00%ff",
    ],
)
def test_an_unknown_token_gets_401(receiver: Receiver, url: NewUrl, path: str) -> None:
    """Only the whole token of a live URL opens."""
    response = receiver.post(path.replace("{token}", url.token))
    assert (response.status_code, response.json()) == (401, {"error": "unknown webhook URL"})


def test_nothing_of_an_unknown_token_is_stored(receiver: Receiver) -> None:
    """A refused delivery leaves nothing in spool and landing folder."""
    body = b"never to be found: " + os.urandom(16).hex().encode()
    assert receiver.post("unknown", body).status_code == 401
    files = [path for path in receiver.home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if body in path.read_bytes()]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_get_405(receiver: Receiver, url: NewUrl, method: str) -> None:
    """A webhook is posted; the answer says so."""
    response = receiver.http.request(method, f"{receiver.base_url}/v1/webhooks/{url.token}")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("host", [b"", b"\xff<>", b"a:b:c", b"-"])
def test_whatever_the_host_a_delivery_is_taken(
    receiver: Receiver, url: NewUrl, host: bytes
) -> None:
    """The URL's token says where it belongs; a 400 would cost the sender an hour."""
    head = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nContent-Length: 2\r\n".encode()
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head + b"Host: " + host + b"\r\n\r\n{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_announced_body_over_the_limit_gets_413(receiver: Receiver, url: NewUrl) -> None:
    """It is refused before it is sent."""
    head = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n"
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_streamed_body_over_the_limit_gets_413(receiver: Receiver, url: NewUrl) -> None:
    """A body that does not say its length is counted while it comes."""
    chunks = (b"x" * 4096 for _ in range(MAX_BODY_BYTES // 4096 + 1))
    response = receiver.http.post(f"{receiver.base_url}/v1/webhooks/{url.token}", content=chunks)
    assert response.status_code == 413


def test_a_chunked_body_is_put_together(receiver: Receiver) -> None:
    """What comes in pieces is landed whole."""
    url = create_integration(receiver.home, "chunked")
    pieces = [bytes([at]) * 30_000 for at in range(10)]
    response = receiver.http.post(
        f"{receiver.base_url}/v1/webhooks/{url.token}", content=iter(pieces)
    )
    assert response.status_code == 200
    [row] = wait_landed(receiver.landing, "chunked", 1)
    assert row["body"] == b"".join(pieces)


def test_a_sender_gone_in_mid_body_leaves_nothing(receiver: Receiver) -> None:
    """Half a body is neither stored nor answered, and the next delivery has offset 0."""
    url = create_integration(receiver.home, "gone")
    head = f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + b"half")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536) == b""
    receiver.wait_logged("request", url_id=url.id, status=None)
    assert receiver.post(url.token, b"whole").status_code == 200
    [row] = wait_landed(receiver.landing, "gone", 1)
    assert (row["offset"], row["body"]) == (0, b"whole")


H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize("wish", ["", H2C, H2C + "Connection: close\r\n"])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 2\r\n\r\n{}",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_a_wish_for_another_protocol_is_ignored(
    receiver: Receiver, url: NewUrl, wish: str, version: str, framing: str
) -> None:
    """A client that offers HTTP/2 in passing delivers like any other, in whatever pieces."""
    request = f"POST /v1/webhooks/{url.token} {version}\r\nHost: a\r\n{wish}{framing}".encode()
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(request), 50):
            connection.sendall(request[at : at + 50])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_bodies_after_a_wish_for_another_protocol_are_landed(receiver: Receiver) -> None:
    """Requests that are sent without waiting for answers are each taken whole and once."""
    url = create_integration(receiver.home, "upgrades")
    wishes = ["", H2C, H2C.replace("h2c", "websocket"), ""] * 50
    bodies = [f"body {at}".encode() for at in range(len(wishes))]
    requests = b"".join(
        f"POST /v1/webhooks/{url.token} HTTP/1.1\r\nHost: a\r\n{wish}"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for wish, body in zip(wishes, bodies, strict=True)
    )
    with socket.create_connection(("127.0.0.1", receiver.port), PATIENCE_SECONDS) as connection:
        connection.sendall(requests)
        rows = wait_landed(receiver.landing, "upgrades", len(bodies))
    assert [row["body"] for row in rows] == bodies


def test_an_empty_body_in_chunks_is_stored(receiver: Receiver, url: NewUrl) -> None:
    """Nothing is a body too."""
    response = receiver.http.post(f"{receiver.base_url}/v1/webhooks/{url.token}", content=iter(()))
    assert response.status_code == 200


def test_integrations_are_numbered_apart(receiver: Receiver) -> None:
    """Two integrations share a spool, yet each has its own writer and offsets without gaps."""
    urls = {name: create_integration(receiver.home, name) for name in ("apart_one", "apart_two")}
    for at in range(10):
        for name, url in urls.items():
            assert receiver.post(url.token, f"{name} {at}".encode()).status_code == 200
    rows = {name: wait_landed(receiver.landing, name, 10) for name in urls}
    for name, found in rows.items():
        assert [row["body"] for row in found] == [f"{name} {at}".encode() for at in range(10)]
    assert rows["apart_one"][0]["writer"] != rows["apart_two"][0]["writer"]


def test_only_landed_files_are_to_be_seen(receiver: Receiver) -> None:
    """Readers of the folder meet whole files only: what is being written begins with a dot."""
    url = create_integration(receiver.home, "visible")
    receiver.post(url.token)
    wait_landed(receiver.landing, "visible", 1)
    visible = [path for path in receiver.landing.rglob("[!.]*") if path.is_file()]
    assert {path.suffix for path in visible} == {".parquet"}


def test_landed_files_are_not_for_others(receiver: Receiver) -> None:
    """They hold personal data: the owner writes, the group reads."""
    url = create_integration(receiver.home, "private")
    receiver.post(url.token)
    wait_landed(receiver.landing, "private", 1)
    modes = {
        (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
        for path in receiver.landing.glob("integration=private/**/[!.]*")
    }
    assert modes == {(True, 0o750), (False, 0o640)}


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/webhooksX", "/v1/webhooks{token}", "/x/v1/webhooks/{token}"]
)
def test_an_unknown_path_gets_404(receiver: Receiver, url: NewUrl, path: str) -> None:
    """There is nothing beside webhooks and health."""
    path = path.replace("{token}", url.token)
    response = receiver.http.post(receiver.base_url + path)
    assert (response.status_code, response.json()) == (404, {"error": "Not Found"})


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_answers_head_like_get(receiver: Receiver, path: str) -> None:
    """Load balancers ask so; what differs is the body alone."""
    got = receiver.http.get(receiver.base_url + path)
    headed = receiver.http.head(receiver.base_url + path)
    assert (headed.status_code, headed.headers, headed.content) == (200, got.headers, b"")
    assert got.content
