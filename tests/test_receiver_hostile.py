"""Hostile and broken clients, for real, beside well-behaved ones that must not notice."""

import gzip
import os
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from customerio_pipeline.registry.records import NewUrl
from tests.running_receiver import (
    PATIENCE_SECONDS,
    Receiver,
    create_integration,
    running_receiver,
    wait_landed,
    wait_until,
)
from tests.steady_load import SteadyLoad

pytestmark = pytest.mark.xdist_group("receiver-hostile")

Address = tuple[str, int]

MEBIBYTE = 1024 * 1024
MAX_BODY_BYTES = 4 * MEBIBYTE
RECEIVE_MAX_BYTES = 8 * MEBIBYTE
MAX_RESIDENT_BYTES = 400 * MEBIBYTE


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One receiver for all attacks; that it lives at the end, as it was, is part of the test."""
    with running_receiver(
        tmp_path_factory.mktemp("home"),
        request_seconds=1,
        max_body_bytes=MAX_BODY_BYTES,
        receive_max_bytes=RECEIVE_MAX_BYTES,
    ) as receiver:
        yield receiver
        assert len(receiver.pids("worker")) == 1
        assert not receiver.logged("webhook_failed")
        assert "Traceback" not in receiver.output


@pytest.fixture(scope="module")
def url(receiver: Receiver) -> NewUrl:
    """The URL of an integration whose landing nobody looks at."""
    return create_integration(receiver.home, "hostile")


@pytest.fixture(scope="module")
def address(receiver: Receiver) -> Address:
    """Where the receiver listens."""
    return "127.0.0.1", receiver.port


@pytest.fixture
def beside(receiver: Receiver, url: NewUrl) -> Callable[[Callable[[], None]], None]:
    """Run an attack while well-behaved clients send: each of their requests gets its 200."""

    def run(attack: Callable[[], None]) -> None:
        load = SteadyLoad(url.token, receiver.port, clients=6)

        def attack_amid_answers() -> None:
            wait_until(lambda: load.statuses.total() > 10, "answers before")
            attack()
            enough = load.statuses.total() + 10
            wait_until(lambda: load.statuses.total() > enough, "answers after")

        load.run_while(attack_amid_answers)
        assert load.broken == []
        assert set(load.statuses) == {200}
        assert max_resident_bytes(receiver) < MAX_RESIDENT_BYTES

    return run


def max_resident_bytes(receiver: Receiver) -> int:
    """Return the most memory that the worker ever had."""
    status = Path(f"/proc/{receiver.pids('worker')[-1]}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def connect(address: Address) -> socket.socket:
    """Open a connection."""
    connection = socket.create_connection(address, PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Read until the receiver closes; never a reset, which would hide the answer."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def read_answer(connection: socket.socket) -> bytes:
    """Read one answer, whose body is an object without another in it."""
    answer = b""
    while not answer.endswith(b"}"):
        piece = connection.recv(65536)
        assert piece, f"closed after {answer!r}"
        answer += piece
    return answer


def post(url: NewUrl, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """Return the head of a delivery."""
    lines = [f"POST /v1/webhooks/{url.token} {version}", "Host: a", *headers, "", ""]
    return "\r\n".join(lines).encode()


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of answers that came one after another."""
    return [int(answer[:3]) for answer in answers.split(b"HTTP/1.1 ")[1:]]


Beside = Callable[[Callable[[], None]], None]


def test_slow_heads(receiver: Receiver, address: Address, beside: Beside) -> None:
    """A byte now and then: 408 when the time is over, however many do it."""

    def attack() -> None:
        with ExitStack() as stack:
            slow = [stack.enter_context(connect(address)) for _ in range(300)]
            for byte in b"POST /v1":
                for connection in slow:
                    connection.send(bytes([byte]))
                time.sleep(0.05)
            answers = [read_all(connection) for connection in slow]
        assert {tuple(statuses(answer)) for answer in answers} == {(408,)}

    beside(attack)


def test_slow_bodies(receiver: Receiver, address: Address, url: NewUrl, beside: Beside) -> None:
    """The same with an authentic head: nothing of it is stored."""

    def attack() -> None:
        with ExitStack() as stack:
            slow = [stack.enter_context(connect(address)) for _ in range(100)]
            for connection in slow[:50]:
                connection.sendall(post(url, "Content-Length: 9") + b"part")
            for connection in slow[50:]:
                connection.sendall(post(url, "Transfer-Encoding: chunked") + b"9\r\npart")
            answers = [read_all(connection) for connection in slow]
        assert {tuple(statuses(answer)) for answer in answers} == {(408,)}

    beside(attack)


def test_a_request_after_another_has_its_own_time(
    receiver: Receiver, address: Address, url: NewUrl
) -> None:
    """The deadline is a request's, not a connection's."""
    with connect(address) as connection:
        for _ in range(3):
            connection.sendall(post(url, "Content-Length: 2"))
            time.sleep(0.5)
            connection.sendall(b"{}")
            assert statuses(read_answer(connection)) == [200]


def test_half_closed_connections(receiver: Receiver, address: Address) -> None:
    """A client that says first that nothing more will come gets its answers."""
    url = create_integration(receiver.home, "half_closed")
    with connect(address) as connection:
        connection.sendall(post(url, "Content-Length: 5") + b"first")
        connection.sendall(post(url, "Content-Length: 6") + b"second")
        connection.shutdown(socket.SHUT_WR)
        assert statuses(read_all(connection)) == [200, 200]
    with connect(address) as connection:
        connection.sendall(post(url, "Content-Length: 5") + b"half")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    rows = wait_landed(receiver.landing, "half_closed", 2)
    assert [row["body"] for row in rows] == [b"first", b"second"]


def test_a_flood_of_pipelined_requests(
    receiver: Receiver, address: Address, beside: Beside
) -> None:
    """Far more than are kept, by clients that never read: they are cut off."""
    flood = b"GET / HTTP/1.1\r\n\r\n" * 20_000

    def attack() -> None:
        with ExitStack() as stack:
            for _ in range(20):
                connection = stack.enter_context(connect(address))
                connection.settimeout(1)
                with suppress(OSError):
                    connection.sendall(flood)

    beside(attack)


def test_resets_amid_pipelined_requests(
    receiver: Receiver, address: Address, url: NewUrl, beside: Beside
) -> None:
    """Clients that reset the connection while many answers are written: no error is logged."""
    flood = (post(url, "Content-Length: 2") + b"{}" + b"GET /none HTTP/1.1\r\n\r\n") * 30

    def attack() -> None:
        for _ in range(200):
            with connect(address) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(flood)
                connection.recv(1)

    beside(attack)
    errors = [line for line in receiver.output.splitlines() if '"level":"error"' in line]
    assert errors == []


@pytest.mark.parametrize("before", [b"", b"GET /health/live HTTP/1.1\r\n\r\n"])
def test_a_url_that_is_none_gets_400(address: Address, before: bytes) -> None:
    """As the first request and behind another one, whose answer comes first."""
    with connect(address) as connection:
        connection.sendall(before + b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n")
        assert statuses(read_all(connection)) == [200] * bool(before) + [400]


def test_clients_that_do_not_read(
    receiver: Receiver, address: Address, url: NewUrl, beside: Beside
) -> None:
    """Their answers fill no memory of ours."""
    requests = (post(url, "Content-Length: 2") + b"{}") * 1000

    def attack() -> None:
        with ExitStack() as stack:
            for _ in range(10):
                connection = stack.enter_context(connect(address))
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
                connection.settimeout(0.1)
                with suppress(OSError):
                    connection.sendall(requests)

    beside(attack)


@pytest.mark.parametrize(
    "begin",
    [
        b"POST /",
        b"POST / HTTP/1.1\r\nX: ",
        b"POST / HTTP/1.1\r\nX",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x=",
    ],
)
def test_endless_heads(receiver: Receiver, address: Address, beside: Beside, begin: bytes) -> None:
    """URL, header, its name, a trailer, a chunk's extension: all end at the limit."""

    def attack() -> None:
        with connect(address) as connection:
            connection.sendall(begin + b"x" * MEBIBYTE)
            # What has no body yet is answered at once.
            answer = read_all(connection)
            assert statuses(answer) in ([431], [404])

    beside(attack)


def test_a_head_over_the_limit_gets_431(receiver: Receiver, address: Address, url: NewUrl) -> None:
    """In one piece or in many headers; one below the limit is taken."""
    with connect(address) as connection:
        connection.sendall(post(url, "Content-Length: 2", "X: " + "x" * 20_000) + b"{}")
        assert statuses(read_answer(connection)) == [200]
        connection.sendall(post(url, "Content-Length: 2", *["X: " + "x" * 90] * 500) + b"{}")
        assert statuses(read_all(connection)) == [431]


def test_odd_chunks(receiver: Receiver, address: Address) -> None:
    """Chunks of one byte with extensions and a trailer are put together; a wrong one is 400."""
    url = create_integration(receiver.home, "odd_chunks")
    body = os.urandom(3000)
    chunks = b"".join(b"1;a=b\r\n" + bytes([byte]) + b"\r\n" for byte in body)
    chunked = post(url, "Transfer-Encoding: chunked")
    with connect(address) as connection:
        connection.sendall(chunked + chunks + b"0\r\nTrailer: a\r\n\r\n")
        assert statuses(read_answer(connection)) == [200]
        connection.sendall(chunked + b"5\r\nfirst\r\nnonsense")
        assert statuses(read_all(connection)) == [400]
    [row] = wait_landed(receiver.landing, "odd_chunks", 1)
    assert row["body"] == body


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"],
        ["Content-Length: 2, 3"],
        ["Content-Length: 2", "Content-Length: 3"],
        ["Content-Length: 99999999999999999999999"],
        ["Content-Length: 2", "Transfer-Encoding: chunked"],
        ["Content-Length: 0x2"],
    ],
)
def test_a_length_that_makes_no_sense_gets_400(
    receiver: Receiver, address: Address, url: NewUrl, headers: list[str]
) -> None:
    """Two readings of one request would be a hole: nothing is guessed."""
    with connect(address) as connection:
        connection.sendall(post(url, *headers) + b"{}")
        assert statuses(read_all(connection)) == [400]


def test_what_follows_a_length_too_short_is_no_part_of_the_body(
    receiver: Receiver, address: Address
) -> None:
    """The announced bytes are stored, the answer to them comes first, the rest gets 400."""
    url = create_integration(receiver.home, "too_short")
    with connect(address) as connection:
        connection.sendall(post(url, "Content-Length: 4") + b"four and more\r\n\r\n")
        assert statuses(read_all(connection)) == [200, 400]
    [row] = wait_landed(receiver.landing, "too_short", 1)
    assert row["body"] == b"four"


def test_a_gzip_bomb_is_kept_packed(receiver: Receiver, beside: Beside) -> None:
    """The receiver unpacks nothing; loading does, within its own limit."""
    url = create_integration(receiver.home, "bomb")
    bomb = gzip.compress(bytes(100 * MEBIBYTE), 1)

    def attack() -> None:
        for _ in range(10):
            assert receiver.post(url.token, bomb, **{"Content-Encoding": "gzip"}).is_success

    beside(attack)
    assert {row["body"] for row in wait_landed(receiver.landing, "bomb", 10)} == {bomb}


def test_http_1_0(receiver: Receiver, address: Address, url: NewUrl) -> None:
    """Answered, and the connection ends, as that version has it."""
    with connect(address) as connection:
        connection.sendall(post(url, "Content-Length: 2", version="HTTP/1.0") + b"{}")
        assert statuses(read_all(connection)) == [200]


def test_an_early_answer_reaches_who_is_still_sending(
    receiver: Receiver, address: Address, url: NewUrl
) -> None:
    """A refused body is read to its end, so that no reset takes the answer away."""
    with connect(address) as connection:
        connection.sendall(post(url, f"Content-Length: {MAX_BODY_BYTES + 1}", "Connection: close"))
        for _ in range(8):
            connection.sendall(bytes(MAX_BODY_BYTES // 8))
        assert statuses(read_all(connection)) == [413]


def test_large_bodies_that_stand_still(
    receiver: Receiver, address: Address, url: NewUrl, beside: Beside
) -> None:
    """More than may be arriving: large ones get 503, small ones pass, and it ends by itself."""

    def attack() -> None:
        with ExitStack() as stack:
            answered = False
            for _ in range(6):
                connection = stack.enter_context(connect(address))
                connection.sendall(post(url, f"Content-Length: {3 * MEBIBYTE}"))
                connection.sendall(bytes(3 * MEBIBYTE - 1))
                connection.settimeout(0.05)
                with suppress(TimeoutError):
                    answer = connection.recv(65536).lower()
                    assert statuses(answer.upper()) == [503]
                    assert b"\r\nretry-after: " in answer
                    answered = True
            assert answered
        assert receiver.logged("request", reason="receive_full")

    beside(attack)
    assert receiver.post(url.token, bytes(3 * MEBIBYTE)).status_code == 200


def test_ten_thousand_idle_connections(
    receiver: Receiver, address: Address, beside: Beside
) -> None:
    """The worker keeps some thousand of them; those who send are always served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 500)

    def attack() -> None:
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(connect(address))
            descriptors = Path(f"/proc/{receiver.pids('worker')[0]}/fd")
            assert len(list(descriptors.iterdir())) < 4096 + 100

    try:
        beside(attack)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
