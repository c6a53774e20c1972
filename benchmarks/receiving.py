"""Acknowledgements a second and their latency: the receiver beside one that stores nothing."""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.errors import BenchmarkError
from benchmarks.fixed_disk_worker import set_sync
from benchmarks.load_generator import OK
from benchmarks.receiver_servers import (
    FIXED_DISK,
    NOT_STORING,
    Cell,
    Receiver,
    measure_cell,
    receiver_as_started,
    worker_alone,
)
from benchmarks.report import (
    Row,
    at_least,
    at_most,
    bar_and_goal,
    heading,
    median,
    median_ratio,
    number,
    ratio,
)
from benchmarks.requests import bodies
from benchmarks.sizes import Sizes

_MEMORY = Path("/dev/shm")  # noqa: S108  a folder of our own is made in it
_SLEEPS = 200

_FAST, _SLOW, _REAL, _NONE = "sync 0.2 ms", "sync 1 ms", "this disk", "storing nothing"
_FIXED_SECONDS = {_FAST: 0.0002, _SLOW: 0.001}
# Storing nothing comes next to what it is compared with.
_TURNS = (_FAST, _NONE, _REAL, _SLOW)

# What must be reached, and what should be (issue 4).
_ACKS_OVER_NONE = {64: (0.5, 0.7), 16: (0.4, 0.6)}
_SLOW_OVER_FAST = 0.75
_P50_OVER_SYNC = (3, 2)
_P99_OVER_NONE = (2.5, 1.8)
_ACKS_PER_SECOND = 2_000


class _Servers(NamedTuple):
    unstored: Receiver
    real: Receiver
    fixed: Receiver


class _Found(NamedTuple):
    """What was measured in one round with one number of connections."""

    cells: dict[str, Cell]
    sleeps_ms: dict[str, float]
    """How long a sleep of the fixed time took, p50."""


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about receiving.

    Raises:
        BenchmarkError: this machine has no file system in memory.
    """
    if not _MEMORY.is_dir():
        raise BenchmarkError(f"There is no file system in memory: {_MEMORY}.")
    with ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_MEMORY)))
        servers = _Servers(
            stack.enter_context(worker_alone(folder / "unstored", NOT_STORING, signed=True)),
            stack.enter_context(receiver_as_started(folder / "storing", signed=True)),
            stack.enter_context(
                worker_alone(
                    memory / "fixed",
                    FIXED_DISK,
                    lambda home: set_sync(home, 0.0),
                    signed=True,
                )
            ),
        )
        size = statistics.mean(map(len, bodies()))
        yield heading(
            "Receiver: 1 worker, access log on, signatures checked, bodies of"
            f" {size:,.0f} bytes (mean), {sizes.seconds:g} s a measurement,"
            f" medians of {sizes.receiver_rounds};"
            " beside it: the same server storing nothing"
        )
        measured: dict[int, list[_Found]] = defaultdict(list)
        for _ in range(sizes.receiver_rounds):
            for connections in sizes.connections:
                measured[connections].append(_measure(servers, connections, sizes.seconds, folder))
        for connections, found in measured.items():
            yield from _rows(connections, found)


def _measure(servers: _Servers, connections: int, seconds: float, folder: Path) -> _Found:
    cells, sleeps = {}, {}
    for turn in _TURNS:
        if turn == _NONE:
            cells[turn] = measure_cell(servers.unstored.server, connections, seconds, folder)
        elif turn == _REAL:
            cells[turn] = servers.real.measure(connections, seconds, folder)
        else:
            set_sync(servers.fixed.installation.settings.home, _FIXED_SECONDS[turn])
            sleeps[turn] = _sleep_ms(_FIXED_SECONDS[turn])
            cells[turn] = servers.fixed.measure(connections, seconds, folder)
    return _Found(cells, sleeps)


def _rows(connections: int, found: Sequence[_Found]) -> Iterator[Row]:
    name = "1 connection" if connections == 1 else f"{connections} connections"
    cells = {turn: [one.cells[turn] for one in found] for turn in _TURNS}
    for turn in (_FAST, _SLOW, _REAL):
        syncs = [one.sleeps_ms.get(turn, one.cells[turn].sync_ms) for one in found]
        yield from _turn_rows(name, turn, connections, cells[turn], cells[_NONE], syncs)
    if connections == max(_ACKS_OVER_NONE):
        slow, fast = ([cell.load.acks_per_second for cell in cells[it]] for it in (_SLOW, _FAST))
        yield Row(
            f"acks/s, {name}, {_SLOW} over {_FAST}",
            ratio(slow, fast),
            goal=at_least(_SLOW_OVER_FAST, median_ratio(slow, fast)),
        )
    answers = [cell.load.answers for turn in _TURNS for cell in cells[turn]]
    not_stored = sum(count for each in answers for status, count in each.items() if status != OK)
    if not_stored:
        yield Row(f"answers other than 200, {name}", number(not_stored))


def _turn_rows(  # noqa: PLR0913, PLR0917  what a line says, and what it is compared with
    name: str,
    turn: str,
    connections: int,
    cells: Sequence[Cell],
    limits: Sequence[Cell],
    syncs: Sequence[float],
) -> Iterator[Row]:
    acks, most = ([cell.load.acks_per_second for cell in column] for column in (cells, limits))
    yield Row(
        f"acks/s, {name}, {turn}",
        f"{median(acks)}; {ratio(acks, most)}",
        median(most),
        _acks_goal(connections, turn, acks, most),
    )
    p50 = [cell.load.p50_ms for cell in cells]
    times, goal = "", ""
    if connections == 1:
        times = f"; {ratio(p50, syncs)} a sync alone of {median(syncs)}"
        goal = bar_and_goal(at_most, *_P50_OVER_SYNC, median_ratio(p50, syncs))
    yield Row(
        f"p50, ms, {name}, {turn}",
        median(p50) + times,
        median([cell.load.p50_ms for cell in limits]),
        goal,
    )
    p99, least = ([cell.load.p99_ms for cell in column] for column in (cells, limits))
    is_goal = connections == max(_ACKS_OVER_NONE)
    yield Row(
        f"p99, ms, {name}, {turn}",
        f"{median(p99)}; {ratio(p99, least)}",
        median(least),
        bar_and_goal(at_most, *_P99_OVER_NONE, median_ratio(p99, least)) if is_goal else "",
    )
    yield Row(
        f"processor time of the worker a request, µs, {name}, {turn}",
        median([cell.cpu_us for cell in cells]),
        median([cell.cpu_us for cell in limits]),
    )
    if turn == _REAL:
        yield Row(f"`fdatasync` of 2 KB alone, p50, ms, around {name}", median(syncs))


def _acks_goal(connections: int, turn: str, acks: Sequence[float], most: Sequence[float]) -> str:
    if turn == _FAST and connections in _ACKS_OVER_NONE:
        return bar_and_goal(at_least, *_ACKS_OVER_NONE[connections], median_ratio(acks, most))
    if turn == _REAL and connections == max(_ACKS_OVER_NONE):
        return at_least(_ACKS_PER_SECOND, statistics.median(acks))
    return ""


def _sleep_ms(seconds: float) -> float:
    """Return the median milliseconds that a sleep takes: the system wakes nobody on the dot."""
    took = []
    for _ in range(_SLEEPS):
        began = time.perf_counter()
        time.sleep(seconds)
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000
