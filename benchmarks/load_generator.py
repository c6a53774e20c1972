"""A load generator that leaves the cores to the server: no HTTP library, requests made beforehand.

A closed loop: each connection is kept alive and sends its next request when the last one was
answered. A process of its own, ``python -m benchmarks.load_generator``, that prints a `Load`.
"""

import argparse
import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.processes import LOCAL
from benchmarks.report import percentile
from benchmarks.requests import read_requests

OK = 200

_WARM_UP = 0.2
"""Time of the warm-up for each second measured."""

_PATIENCE_SECONDS = 30.0
_LENGTH = b"content-length:"


class Load(msgspec.Struct, frozen=True):
    """What came of a load."""

    acks_per_second: float
    """Requests that were answered with 200; as the latencies, after the warm-up."""

    p50_ms: float
    p99_ms: float
    answers: dict[int, int]
    """All answers by status, those of the warm-up too."""


def main() -> None:
    """Send requests and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("requests", type=Path)
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    requests = itertools.cycle(read_requests(arguments.requests))
    driver = _Driver(arguments.port, requests, arguments.seconds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        load = runner.run(driver.run(arguments.connections))
    print(msgspec.json.encode(load).decode())


def read_status(answer: bytes) -> int | None:
    """Return the status of a whole answer, None while a part of it is missing."""
    head_end = answer.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = answer[:head_end].lower()
    length_at = head.find(_LENGTH)
    length = int(head[length_at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if length_at > 0 else 0
    if len(answer) < head_end + 4 + length:
        return None
    return int(head[9:12])


class _Driver:
    def __init__(self, port: int, requests: Iterator[bytes], seconds: float) -> None:
        self.requests = requests
        self._port = port
        self._seconds = seconds
        self._begin = self._end = 0.0
        self._latencies: list[float] = []
        self._answers: Counter[int] = Counter()
        self._open = 0
        self._ended: asyncio.Future[None]

    async def run(self, connections: int) -> Load:
        """Send for the time set.

        Raises:
            BenchmarkError: the server closed a connection, or stopped to answer.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        self._begin = perf_counter() + self._seconds * _WARM_UP
        self._end = self._begin + self._seconds
        self._open = connections
        for _ in range(connections):
            await loop.create_connection(lambda: _Connection(self), LOCAL, self._port)
        try:
            async with asyncio.timeout(self._end - perf_counter() + _PATIENCE_SECONDS):
                await self._ended
        except TimeoutError:
            raise BenchmarkError("The server stopped to answer.") from None
        if not self._latencies:
            raise BenchmarkError(f"Nothing was acknowledged: {dict(self._answers)}.")
        return Load(
            acks_per_second=len(self._latencies) / self._seconds,
            p50_ms=percentile(self._latencies, 0.5) * 1000,
            p99_ms=percentile(self._latencies, 0.99) * 1000,
            answers=self._answers,
        )

    def note(self, status: int, sent_at: float) -> bool:
        """Count an answer; tell whether to go on."""
        now = perf_counter()
        self._answers[status] += 1
        if status == OK and self._begin <= now < self._end:
            self._latencies.append(now - sent_at)
        return now < self._end

    def closed(self, *, early: bool) -> None:
        """Count a connection that is over."""
        self._open -= 1
        if self._ended.done():
            return
        if early:
            self._ended.set_exception(BenchmarkError("The server closed a connection."))
        elif not self._open:
            self._ended.set_result(None)


class _Connection(asyncio.Protocol):
    __slots__ = ("_answer", "_driver", "_is_waiting", "_sent_at", "_transport")

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        status = read_status(self._answer)
        if status is None:
            return
        self._answer = b""
        self._is_waiting = False
        if self._driver.note(status, self._sent_at):
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self._driver.closed(early=self._is_waiting)

    def _send(self) -> None:
        self._is_waiting = True
        self._sent_at = perf_counter()
        self._transport.write(next(self._driver.requests))


if __name__ == "__main__":
    main()
