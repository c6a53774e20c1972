"""Landing files full of simulated events, written by all cores."""

import itertools
import multiprocessing
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from benchmarks.event_pool import bodies, read_pool, received_at
from benchmarks.machine import cores
from benchmarks.processes import ignore_ctrl_c
from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file

SCHEMA = "benchmark"
DELIVERIES_PER_FILE = 25_000

_ROW_GROUP = 10_000  # as the sealer's
_HEADERS = ("application/json", None, "Customer.io Web Hooks", "1767225600", None)


class Chunk(NamedTuple):
    """One landing file to write."""

    pool: Path
    """File of the bodies (`benchmarks.event_pool`)."""

    landing: Path
    schema: str
    writer: str
    first: int
    """Offset of its first delivery."""

    deliveries: int
    number: int
    """Number of its first event in all that the benchmark simulates; decides time and contents."""

    late: tuple[tuple[int, int], ...] = ()
    """Deliveries of earlier chunks that come again: pairs of the first one's number and a count."""


class Landed(NamedTuple):
    """What was landed."""

    deliveries: int = 0
    json_bytes: int = 0
    """Bytes of the bodies."""

    file_bytes: int = 0

    def plus(self, other: "Landed") -> "Landed":
        """Return both together."""
        return Landed(*(mine + its for mine, its in zip(self, other, strict=True)))


def chunks(pool: Path, landing: Path, writer: str, number: int, deliveries: int) -> list[Chunk]:
    """Return the files to write for so many deliveries from event `number` on."""
    return [
        Chunk(
            pool=pool,
            landing=landing,
            schema=SCHEMA,
            writer=writer,
            first=first,
            deliveries=min(DELIVERIES_PER_FILE, deliveries - first),
            number=number + first,
        )
        for first in range(0, deliveries, DELIVERIES_PER_FILE)
    ]


def land(files: list[Chunk]) -> Landed:
    """Write the files, several at once."""
    if len(files) == 1:
        return write_chunk(files[0])
    # Not forked: a library's threads would not come along.
    spawned = multiprocessing.get_context("spawn")
    with spawned.Pool(min(cores(), len(files)), ignore_ctrl_c) as pool:
        return reduce(Landed.plus, pool.imap_unordered(write_chunk, files))


def write_chunk(chunk: Chunk) -> Landed:
    """Write one landing file."""
    pool = read_pool(chunk.pool)
    late = sum(count for _, count in chunk.late)
    again = (itertools.islice(bodies(pool, number), count) for number, count in chunk.late)
    fresh = itertools.islice(bodies(pool, chunk.number), chunk.deliveries - late)
    deliveries = [
        _delivery(chunk, at, body) for at, body in enumerate(itertools.chain(*again, fresh))
    ]
    file = LandingFile.sealed_at(
        datetime.fromtimestamp(received_at(chunk.number + chunk.deliveries), UTC),
        schema=chunk.schema,
        writer=chunk.writer,
        first=chunk.first,
        last=chunk.first + chunk.deliveries - 1,
    )
    groups = (deliveries[at : at + _ROW_GROUP] for at in range(0, chunk.deliveries, _ROW_GROUP))
    path = write_landing_file(chunk.landing, file, groups)
    json_bytes = sum(len(delivery.body) for delivery in deliveries)
    return Landed(len(deliveries), json_bytes, path.stat().st_size)


def _delivery(chunk: Chunk, at: int, body: bytes) -> Delivery:
    received_ns = int(received_at(chunk.number + at) * 1_000_000) * 1000
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
