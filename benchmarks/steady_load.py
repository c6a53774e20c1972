"""A steady load: so many requests a second, whatever the answers take; each body has a number.

An open loop: a latency counts from the moment at which a request was due, so a server that falls
behind is seen to. A process of its own, ``python -m benchmarks.steady_load``, that prints an
`Interval` a line, and at the end writes what became of each number to a file.
"""

import argparse
import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.load_generator import OK, read_status
from benchmarks.processes import LOCAL
from benchmarks.report import percentile
from benchmarks.requests import NUMBER_DIGITS, read_numbered_requests

_CONNECTIONS = 64
_TICK_SECONDS = 0.001
_PATIENCE_SECONDS = 30.0


class Fate(IntEnum):
    """What became of a delivery; its place in the file is its number."""

    SENT = 1
    ACKED = 2


class Interval(msgspec.Struct, frozen=True):
    """What came of a part of the load."""

    seconds: float
    """Since the beginning."""

    acks_per_second: float
    p50_ms: float
    p99_ms: float
    answers: dict[int, int]
    """Answers by status; 0 stands for connections that were lost with a request."""


def main() -> None:
    """Send requests and print what comes of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path)
    parser.add_argument("rate", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("warm_up", type=float, help="Seconds that are an interval of their own.")
    parser.add_argument("interval", type=float)
    parser.add_argument("fates", type=Path)
    arguments = parser.parse_args()
    requests = itertools.cycle(read_numbered_requests(arguments.requests))
    sender = _Sender(arguments.port, requests, arguments.rate)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(sender.run(arguments.seconds, arguments.warm_up, arguments.interval))
    arguments.fates.write_bytes(sender.fates)


class _Sender:
    def __init__(self, port: int, requests: Iterator[tuple[bytes, bytes]], rate: float) -> None:
        self.fates = bytearray()
        self._port = port
        self._requests = requests
        self._rate = rate
        self._idle: list[_Connection] = []
        self._late: deque[float] = deque()
        """Moments at which requests were due that found no connection."""

        self._latencies: list[float] = []
        self._answers: Counter[int] = Counter()
        self._open = 0

    async def run(self, seconds: float, warm_up: float, interval: float) -> None:
        """Send for the warm-up and then for these seconds, told about in intervals.

        Raises:
            BenchmarkError: requests stay without an answer.
        """
        for _ in range(_CONNECTIONS):
            await self._connect()
        began = told = due = perf_counter()
        end = began + warm_up + seconds
        tell_at = began + warm_up
        while due < end:
            now = perf_counter()
            while due <= now:
                self._send(due)
                due += 1 / self._rate
            # What is left in the end is told with the last one.
            if now >= tell_at and end - now > interval / 2:
                self._tell(now - began, now - told)
                told = now
                tell_at += interval
            await asyncio.sleep(_TICK_SECONDS)
        give_up_at = perf_counter() + _PATIENCE_SECONDS
        while self._late or len(self._idle) < self._open:
            if perf_counter() > give_up_at:
                raise BenchmarkError("Requests stay without an answer.")
            await asyncio.sleep(_TICK_SECONDS)
        self._tell(perf_counter() - began, perf_counter() - told)

    def answered(self, connection: "_Connection", status: int, number: int, due: float) -> None:
        """Count an answer, and let the connection send what is late."""
        self._answers[status] += 1
        if status == OK:
            self.fates[number] = Fate.ACKED
            self._latencies.append(perf_counter() - due)
        self._idle.append(connection)
        if self._late:
            self._send(self._late.popleft())

    def lost(self, connection: "_Connection") -> None:
        """Count a connection that the server closed, and open another one."""
        self._open -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        else:
            self._answers[0] += 1
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self), LOCAL, self._port)
        self._open += 1
        self._idle.append(connection)

    def _send(self, due: float) -> None:
        if not self._idle:
            self._late.append(due)
            return
        number = len(self.fates)
        self.fates.append(Fate.SENT)
        before, after = next(self._requests)
        self._idle.pop().send(b"%b%0*d%b" % (before, NUMBER_DIGITS, number, after), number, due)

    def _tell(self, at: float, took: float) -> None:
        acked = len(self._latencies)
        interval = Interval(
            seconds=at,
            acks_per_second=acked / took,
            p50_ms=percentile(self._latencies, 0.5) * 1000 if acked else 0,
            p99_ms=percentile(self._latencies, 0.99) * 1000 if acked else 0,
            answers=self._answers,
        )
        print(msgspec.json.encode(interval).decode(), flush=True)
        self._latencies.clear()
        self._answers.clear()


class _Connection(asyncio.Protocol):
    __slots__ = ("_answer", "_due", "_number", "_sender", "_transport")

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, number: int, due: float) -> None:
        self._number, self._due = number, due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        status = read_status(self._answer)
        if status is not None:
            self._answer = b""
            self._sender.answered(self, status, self._number, self._due)

    def connection_lost(self, _: Exception | None) -> None:
        self._sender.lost(self)


if __name__ == "__main__":
    main()
