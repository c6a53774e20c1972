"""What sealing in the background costs those who wait for an acknowledgement."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.load_generator import OK
from benchmarks.machine import sync_ms
from benchmarks.processes import run
from benchmarks.receiver_servers import NOT_SEALING, Receiver, receiver_as_started, worker_alone
from benchmarks.report import Row, at_most, heading, median, median_ratio, number, ratio
from benchmarks.requests import write_numbered_requests
from benchmarks.sizes import Sizes
from benchmarks.steady_load import Interval

_SEALING_OVER_NOT = 2
_WARM_UP = 0.2


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about a steady load with and without sealing."""
    sealing: list[Interval] = []
    idle: list[Interval] = []
    syncs = []
    with ExitStack() as stack:
        with_sealer = stack.enter_context(receiver_as_started(folder / "sealing"))
        without = stack.enter_context(worker_alone(folder / "not-sealing", NOT_SEALING))
        for _ in range(sizes.receiver_rounds):
            for receiver, found in ((with_sealer, sealing), (without, idle)):
                before = sync_ms(folder)
                found.append(_measure(receiver, folder, sizes))
                syncs.append((before + sync_ms(folder)) / 2)
    yield heading(
        f"Receiver at a steady {sizes.steady_rate:,} requests/s on this disk, a segment sealed"
        f" every second; {sizes.seconds:g} s a measurement, medians of {sizes.receiver_rounds};"
        " beside it: the same, nothing sealed meanwhile"
    )
    yield Row(
        "acks/s, steady load",
        median([one.acks_per_second for one in sealing]),
        median([one.acks_per_second for one in idle]),
    )
    yield Row(
        "p50, ms, steady load",
        median([one.p50_ms for one in sealing]),
        median([one.p50_ms for one in idle]),
    )
    p99, alone = ([one.p99_ms for one in column] for column in (sealing, idle))
    yield Row(
        "p99, ms, steady load",
        f"{median(p99)}; {ratio(p99, alone)}",
        median(alone),
        at_most(_SEALING_OVER_NOT, median_ratio(p99, alone)),
    )
    yield Row("`fdatasync` of 2 KB alone, p50, ms, around the steady load", median(syncs))
    answers = [one.answers for one in (*sealing, *idle)]
    not_stored = sum(count for each in answers for status, count in each.items() if status != OK)
    if not_stored:
        yield Row("answers other than 200, steady load", number(not_stored))


def _measure(receiver: Receiver, folder: Path, sizes: Sizes) -> Interval:
    """Return what came of the second part of a load, after the warm-up."""
    requests = folder / "numbered"
    write_numbered_requests(requests, receiver.installation.path)
    command = [sys.executable, "-m", "benchmarks.steady_load", str(receiver.server.port)]
    command += [str(requests), str(sizes.steady_rate), str(sizes.seconds)]
    command += [str(sizes.seconds * _WARM_UP), str(sizes.seconds), str(folder / "fates")]
    printed = run(command, os.environ)
    intervals = [msgspec.json.decode(line, type=Interval) for line in printed.splitlines()]
    receiver.wait_landed(sum(one.answers.get(OK, 0) for one in intervals))
    return intervals[-1]
