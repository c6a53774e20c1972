"""The sender behaves as Customer.io does, shown on a real server."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pytest

from customerio_pipeline.simulator import sending
from customerio_pipeline.simulator.events import SimulatedEvent, generate
from customerio_pipeline.simulator.sending import Patience, Summary, send
from customerio_pipeline.simulator.signing import sign

_NEVER_SHOWN = "tok-3n-that-must-not-show"
# So long that a test which waits for it fails.
_NEVER = 10_000.0
_SHORT = Patience(first_wait=0.01, longest_wait=0.05, hour=0.02)


class Call(NamedTuple):
    """A request that the server got."""

    path: str
    headers: dict[str, str]
    body: bytes


class Server(NamedTuple):
    """A running stand-in for the receiver."""

    url: str
    calls: list[Call]


@contextmanager
def serving(answer: Callable[[int], int], port: int = 0) -> Iterator[Server]:
    """Run a server that answers its n-th request, from 1, with ``answer(n)``.

    0 hangs up; -1 says a byte now and then, and nothing that makes an answer.
    """
    calls: list[Call] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.append(Call(self.path, dict(self.headers), body))
            code = answer(len(calls))
            if code <= 0:
                self.close_connection = True
                if code < 0:
                    self._dribble()
                return
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _dribble(self) -> None:
            with suppress(OSError):
                for byte in b"HTTP/1.1 200 " + b"O" * 100:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/v1/webhooks/{_NEVER_SHOWN}"
            yield Server(url, calls)
        finally:
            server.shutdown()
            thread.join()


def _events(count: int) -> list[SimulatedEvent]:
    return list(islice(generate(1), count))


def test_everything_arrives_as_customer_io_sends_it() -> None:
    """Bodies byte for byte, with the headers and a signature that verifies."""
    events = _events(200)
    acknowledged: list[SimulatedEvent] = []
    with serving(lambda _: 200) as server:
        summary = asyncio.run(
            send(
                server.url,
                events,
                concurrency=4,
                signing_key="key",
                on_acknowledged=acknowledged.append,
            )
        )
    bodies = sorted(event.body for event in events)
    assert sorted(call.body for call in server.calls) == bodies
    assert sorted(event.body for event in acknowledged) == bodies
    assert (summary.sent, summary.acknowledged, summary.retried, summary.failed) == (200, 200, 0, 0)
    assert summary.events_per_second > 0
    for call in server.calls:
        headers = {name.lower(): value for name, value in call.headers.items()}
        assert call.path == f"/v1/webhooks/{_NEVER_SHOWN}"
        assert headers["content-type"] == "application/json"
        assert "Customer.io" in headers["user-agent"]
        timestamp = int(headers["x-cio-timestamp"])
        assert abs(timestamp - time.time()) < 60
        assert headers["x-cio-signature"] == sign("key", timestamp, call.body)


def test_unsigned_without_a_key() -> None:
    """No key, no signature header."""
    with serving(lambda _: 202) as server:
        asyncio.run(send(server.url, _events(1)))
    assert "x-cio-signature" not in {name.lower() for name in server.calls[0].headers}


def test_failed_call_is_repeated_before_the_next_event() -> None:
    """Head of line: on a connection the order is kept, whatever fails."""
    events = _events(10)
    failures: list[str] = []
    with serving(lambda number: 200 if number % 3 == 0 else 503) as server:
        summary = asyncio.run(send(server.url, events, patience=_SHORT, on_failure=failures.append))
    assert [call.body for call in server.calls] == [
        event.body for event in events for _ in range(3)
    ]
    assert (summary.acknowledged, summary.retried, summary.failed) == (10, 20, 0)
    assert failures == ["HTTP 503"] * 20


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 405, 410, 429, 500, 502, 521, 0])
def test_costly_answers_wait_the_hour(code: int) -> None:
    """customerio-webhooks 2; 0 is a connection that ends without an answer."""
    patience = Patience(first_wait=_NEVER, longest_wait=_NEVER, hour=0.01, give_up=1000)
    with serving(lambda number: code if number == 1 else 200) as server:
        summary = asyncio.run(send(server.url, _events(1), patience=patience))
    assert (summary.acknowledged, summary.retried) == (1, 1)


@pytest.mark.parametrize("code", [301, 408, 413, 422, 503, 504])
def test_other_answers_wait_the_ordinary_time(code: int) -> None:
    """503 is the cheapest refusal; a redirect is not followed."""
    patience = Patience(first_wait=0.01, longest_wait=0.01, hour=_NEVER, give_up=1000)
    with serving(lambda number: code if number == 1 else 200) as server:
        summary = asyncio.run(send(server.url, _events(1), patience=patience))
    assert (summary.acknowledged, summary.retried) == (1, 1)


def test_call_is_given_four_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on the whole call, whatever bytes trickle in; shortened here."""
    assert sending.TIMEOUT_SECONDS == 4
    monkeypatch.setattr(sending, "TIMEOUT_SECONDS", 0.3)
    failures: list[str] = []
    with serving(lambda number: -1 if number == 1 else 200) as server:
        summary = asyncio.run(
            send(server.url, _events(1), patience=_SHORT, on_failure=failures.append)
        )
    assert (summary.acknowledged, summary.retried) == (1, 1)
    assert failures == ["no answer within 0.3 s"]


def test_receiver_that_is_down_at_first_gets_everything() -> None:
    """A refused connection costs time, not events."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    refused = threading.Event()
    failures: list[str] = []

    def failed(reason: str) -> None:
        failures.append(reason)
        refused.set()

    async def run() -> Summary:
        url = f"http://127.0.0.1:{port}/v1/webhooks/{_NEVER_SHOWN}"
        return await send(url, _events(5), patience=_SHORT, on_failure=failed)

    outcome: list[Summary] = []
    sender = threading.Thread(target=lambda: outcome.append(asyncio.run(run())))
    sender.start()
    assert refused.wait(30)
    with serving(lambda _: 200, port) as server:
        sender.join(30)
    assert outcome[0].acknowledged == 5
    assert len(server.calls) == 5
    assert failures[0] == "connection failed: ConnectError"


def test_event_is_given_up_in_the_end() -> None:
    """After what stands for seven days the queue moves on."""
    events = _events(3)
    poison = events[1].body
    calls: list[Call] = []
    patience = Patience(first_wait=0.01, longest_wait=0.05, hour=0.05, give_up=0.3)
    with serving(lambda _: 500 if calls[-1].body == poison else 200) as server:
        calls = server.calls
        summary = asyncio.run(send(server.url, events, patience=patience))
    assert (summary.sent, summary.acknowledged, summary.failed) == (3, 2, 1)
    assert [server.calls[0].body, server.calls[-1].body] == [events[0].body, events[2].body]


def test_stop_ends_an_endless_simulation() -> None:
    """Calls under way are finished, so that every acknowledged event is counted."""

    async def run(url: str) -> Summary:
        stop = asyncio.Event()

        def acknowledged(_: SimulatedEvent) -> None:
            if len(server.calls) >= 20:
                stop.set()

        return await send(url, generate(1), concurrency=3, stop=stop, on_acknowledged=acknowledged)

    with serving(lambda _: 200) as server:
        summary = asyncio.run(run(server.url))
    assert summary.sent == summary.acknowledged == len(server.calls) < 100
    assert summary.failed == 0


def test_stop_interrupts_a_pause() -> None:
    """What was not acknowledged is counted as failed, never silently dropped."""

    async def run(url: str) -> Summary:
        stop = asyncio.Event()
        patience = Patience(hour=_NEVER, give_up=2 * _NEVER)
        return await send(
            url, generate(1), stop=stop, patience=patience, on_failure=lambda _: stop.set()
        )

    with serving(lambda _: 500) as server:
        summary = asyncio.run(run(server.url))
    assert (summary.sent, summary.acknowledged, summary.failed) == (1, 0, 1)


def test_rate_is_an_upper_bound() -> None:
    """11 events at 10 a second cannot all be sent within a second."""
    with serving(lambda _: 200) as server:
        summary = asyncio.run(send(server.url, _events(11), rate=10, concurrency=4))
    assert summary.acknowledged == 11
    assert summary.seconds >= 1


def test_token_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP client logs whole URLs unless it is told not to."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    with serving(lambda number: 500 if number == 1 else 200) as server:
        asyncio.run(send(server.url, _events(2), patience=_SHORT))
    assert _NEVER_SHOWN not in caplog.text


def _command(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("customerio-pipeline")), "simulate", *arguments]


def test_command_reads_the_url_from_standard_input() -> None:
    """So it stays out of the list of processes; the key comes from a variable."""
    with serving(lambda _: 200) as server:
        ended = subprocess.run(
            _command("-", "--events", "50", "--seed", "3", "--signing-key-env", "KEY", "--json"),
            input=server.url,
            env={**os.environ, "KEY": "signing"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["acknowledged"] == 50
    assert _NEVER_SHOWN not in ended.stdout + ended.stderr
    assert sorted(call.body for call in server.calls) == sorted(
        event.body for event in islice(generate(3), 50)
    )
    (headers,) = {tuple(sorted(call.headers)) for call in server.calls}
    assert "x-cio-signature" in {name.lower() for name in headers}


def test_command_ends_on_a_signal_with_its_summary() -> None:
    """``--events 0`` goes on until it is stopped."""
    reached = threading.Event()

    def answer(number: int) -> int:
        if number >= 20:
            reached.set()
        return 503 if number == 1 else 200

    with serving(answer) as server:
        process = subprocess.Popen(
            _command(server.url, "--events", "0", "--concurrency", "1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reached.wait(30)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("Sent ")
    assert err == "HTTP 503: trying again.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["tok-3n-that-must-not-show"],
        ["ftp://h/tok-3n-that-must-not-show"],
        ["http://h:tok-3n-that-must-not-show/"],
        ["http:///tok-3n-that-must-not-show"],
        ["http://h/", "--signing-key-env", "NOT_SET"],
        ["http://h/", "--duplicates", "2"],
        ["http://h/", "--rate", "0"],
    ],
)
def test_mistake_ends_with_exit_2_and_never_shows_the_url(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped webhook URL is still a secret."""
    from customerio_pipeline.cli import main

    monkeypatch.setattr(sys, "argv", ["customerio-pipeline", "simulate", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    shown = capsys.readouterr()
    assert _NEVER_SHOWN not in shown.out + shown.err
