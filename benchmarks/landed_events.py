"""Landing files full of simulated events, written by all cores."""

import itertools
import multiprocessing
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import cores
from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file
from customerio_pipeline.simulator.events import START, generate

DUPLICATES = 0.03
MALFORMED = 0.001
DELIVERIES_PER_FILE = 25_000

_ROW_GROUP = 10_000  # as the sealer's
_SECONDS_AN_EVENT = 0.05
_HEADERS = ("application/json", None, "Customer.io Web Hooks", "1767225600", None)


class Chunk(NamedTuple):
    """One landing file to write."""

    landing: Path
    schema: str
    writer: str
    first: int
    """Offset of its first delivery."""

    deliveries: int
    number: int
    """Number of its first event in all that the benchmark simulates; decides time and contents."""

    late: tuple[tuple[int, int], ...] = ()
    """Deliveries of earlier chunks that come again: pairs of the chunk's number and a count."""


class Landed(NamedTuple):
    """What was landed."""

    deliveries: int = 0
    json_bytes: int = 0
    """Bytes of the bodies."""

    file_bytes: int = 0

    def plus(self, other: "Landed") -> "Landed":
        """Return both together."""
        return Landed(*(mine + its for mine, its in zip(self, other, strict=True)))


def land(chunks: list[Chunk]) -> Landed:
    """Write the chunks, several at once."""
    if len(chunks) == 1:
        return write_chunk(chunks[0])
    # Not forked: a library's threads would not come along.
    spawned = multiprocessing.get_context("spawn")
    with spawned.Pool(min(cores(), len(chunks)), _ignore_ctrl_c) as pool:
        return reduce(Landed.plus, pool.imap_unordered(write_chunk, chunks))


def write_chunk(chunk: Chunk) -> Landed:
    """Write one landing file."""
    late = sum(count for _, count in chunk.late)
    again = (itertools.islice(_bodies(number), count) for number, count in chunk.late)
    fresh = itertools.islice(_bodies(chunk.number), chunk.deliveries - late)
    deliveries = [
        _delivery(chunk, at, body) for at, body in enumerate(itertools.chain(*again, fresh))
    ]
    file = LandingFile.sealed_at(
        datetime.fromtimestamp(_moment(chunk.number + chunk.deliveries), UTC),
        schema=chunk.schema,
        writer=chunk.writer,
        first=chunk.first,
        last=chunk.first + chunk.deliveries - 1,
    )
    groups = (deliveries[at : at + _ROW_GROUP] for at in range(0, chunk.deliveries, _ROW_GROUP))
    path = write_landing_file(chunk.landing, file, groups)
    json_bytes = sum(len(delivery.body) for delivery in deliveries)
    return Landed(len(deliveries), json_bytes, path.stat().st_size)


def _bodies(number: int) -> Iterator[bytes]:
    """Return the bodies of the chunk with this number; the same ones each time."""
    moments = map(_moment, itertools.count(number))
    stream = generate(number, duplicates=DUPLICATES, malformed=MALFORMED, now=lambda: next(moments))
    return (event.body for event in stream)


def _delivery(chunk: Chunk, at: int, body: bytes) -> Delivery:
    received_ns = int(_moment(chunk.number + at) * 1_000_000) * 1000
    return Delivery(
        writer=chunk.writer,
        offset=chunk.first + at,
        sequence=received_ns,
        received_ns=received_ns,
        url_id="benchmark",
        signature="unchecked",
        headers=_HEADERS,
        body=body,
    )


def _moment(number: int) -> float:
    """Return when an event is received, in seconds since the epoch."""
    return START + number * _SECONDS_AN_EVENT


def _ignore_ctrl_c() -> None:
    # The benchmark itself ends the pool.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
