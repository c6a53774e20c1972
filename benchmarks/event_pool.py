"""A pool of realistic bodies, made once a run; copies of it with ids of their own make millions.

A copy is the pool moved on in time: the same events under other ids, each copy later than the one
before. So simulating ten million events costs little more than writing them.
"""

import itertools
import multiprocessing
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec

from benchmarks.machine import cores
from benchmarks.processes import ignore_ctrl_c
from customerio_pipeline.simulator.events import START, generate

DUPLICATES = 0.03
MALFORMED = 0.001
FEWEST_BYTES, MOST_BYTES = 500, 2000

POOL_EVENTS = 50_000
"""Events of a whole pool; a smaller one covers the first part of a period only."""

PERIOD_MILLISECONDS = 32**5
"""Simulated time of one copy, about 9 hours: what one step of a ULID's fifth character means."""

ULID_PREFIX, ULID_TIME = 5, 10
"""Characters of a ULID that count periods, and all of those that are time; 16 of chance follow."""

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Digits of a ULID, in the order of their values."""

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
"""Characters of a delivery's id."""

_SEEDS = (11, 12)
# Share of the simulator's bodies that are of these sizes; malformed ones are kept at any.
_SHARE_KEPT = 0.385
_VARIABLE = re.compile(
    rb'"(?:(01[0-9A-HJKMNP-TV-Z]{24})"|([A-Za-z0-9_-]{27}=)"|timestamp":(\d{10}))'
)


def make_pool(file: Path, events: int = POOL_EVENTS) -> None:
    """Simulate the bodies of a pool with all cores, and keep them in `file`."""
    count = max(1, events // len(_SEEDS))
    # Not forked: a library's threads would not come along.
    spawned = multiprocessing.get_context("spawn")
    with spawned.Pool(min(cores(), len(_SEEDS)), ignore_ctrl_c) as workers:
        parts = workers.starmap(
            _part, [(seed, at * count, count) for at, seed in enumerate(_SEEDS)]
        )
    file.write_bytes(msgspec.msgpack.encode(list(itertools.chain.from_iterable(parts))))


def read_pool(file: Path) -> list[bytes]:
    """Return the bodies of the pool, in the order in which they are received."""
    return msgspec.msgpack.decode(file.read_bytes(), type=list[bytes])


def bodies(pool: list[bytes], number: int) -> Iterator[bytes]:
    """Yield bodies without end; `number`, the first one's, decides them all."""
    copy, skipped = divmod(number, len(pool))
    for at in itertools.count(copy):
        renumber = _Renumber(at)
        for body in itertools.islice(pool, skipped, None):
            yield _VARIABLE.sub(renumber, body)
        skipped = 0


def received_at(number: int) -> float:
    """Return when an event is received, in seconds since the epoch."""
    return START + number * (PERIOD_MILLISECONDS / 1000 / POOL_EVENTS)


def moved_prefix(prefix: str, copy: int) -> str:
    """Return the first characters of a ULID, as many periods later as the copy's number."""
    value = copy
    for at, digit in enumerate(reversed(prefix)):
        value += CROCKFORD.index(digit) << 5 * at
    return "".join(CROCKFORD[value >> 5 * at & 31] for at in reversed(range(len(prefix))))


def permuted(alphabet: str, copy: int) -> str:
    """Return the characters that stand for the alphabet's in a copy; what was chance stays so."""
    if copy == 0:
        return alphabet
    return "".join(Random(copy).sample(alphabet, len(alphabet)))  # noqa: S311  no secret


class _Renumber:
    """Gives the ids and the times in a body of the pool the form that they have in a copy."""

    def __init__(self, copy: int) -> None:
        self._copy = copy
        self._ulids = _table(CROCKFORD, copy)
        self._deliveries = _table(BASE64, copy)
        self._seconds = copy * PERIOD_MILLISECONDS // 1000
        self._prefixes: dict[bytes, bytes] = {}

    def __call__(self, found: re.Match[bytes]) -> bytes:
        ulid, delivery, time = found.groups()
        if ulid:
            prefix = self._prefixes.get(ulid[:ULID_PREFIX]) or self._moved(ulid[:ULID_PREFIX])
            chance = ulid[ULID_TIME:].translate(self._ulids)
            return b'"%b%b%b"' % (prefix, ulid[ULID_PREFIX:ULID_TIME], chance)
        if delivery:
            return b'"%b"' % delivery.translate(self._deliveries)
        return b'"timestamp":%d' % (int(time) + self._seconds)

    def _moved(self, prefix: bytes) -> bytes:
        moved = moved_prefix(prefix.decode(), self._copy).encode()
        self._prefixes[prefix] = moved
        return moved


def _table(alphabet: str, copy: int) -> bytes:
    return bytes.maketrans(alphabet.encode(), permuted(alphabet, copy).encode())


def _part(seed: int, number: int, count: int) -> list[bytes]:
    """Simulate one seed's share: people of its own, and the time from event `number` on."""
    kept: list[bytes] = []
    stream = generate(
        seed,
        duplicates=DUPLICATES,
        malformed=MALFORMED * _SHARE_KEPT,
        now=lambda: received_at(number + len(kept)),
    )
    while len(kept) < count:
        event = next(stream)
        if event.malformed or FEWEST_BYTES <= len(event.body) <= MOST_BYTES:
            kept.append(event.body)
    return kept
