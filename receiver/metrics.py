"""What the receiver's processes count, in memory that outlives each of them.

The supervisor makes the memory and hands it down as a file descriptor. Each process claims a region
by a lock that dies with it, and counts on from where an earlier holder ended; so totals do not fall
when a process dies. A region has one writer at a time and each number is one machine word: nobody
waits for a lock, and no reader sees half a number.
"""

import fcntl
import mmap
import os
from bisect import bisect_left
from enum import IntEnum
from http import HTTPStatus
from itertools import count
from typing import NamedTuple, Self

from customerio_pipeline.landing.signatures import INVALID, STALE
from receiver.refusals import Refusal

CLIENT_GONE = "client_gone"

# Before the application, besides answers with a status of their own.
CONNECTION_LIMIT = "connection_limit"
PIPELINE_LIMIT = "pipeline_limit"

REFUSED_FOR = (
    *Refusal,
    CLIENT_GONE,
    CONNECTION_LIMIT,
    PIPELINE_LIMIT,
    *(status.name.lower() for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST),
)
"""Why a delivery was not accepted: a refusal, or the name of the answer's status."""

_MILLISECOND = 1_000_000
_TIMES = tuple(
    round(milliseconds * _MILLISECOND)
    for milliseconds in (0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)
)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Word(IntEnum):
    """Places of single numbers in a region."""

    HOLDER = 0
    """A `Holder`."""

    # Of a worker, as of its last look; no totals.
    SPOOL_TROUBLE = 1
    LANDING_TROUBLE = 2
    REGISTRY_TROUBLE = 3
    WAITING_BYTES = 4

    STARTS = 5
    ACCEPTED_BYTES = 6
    SEALED_FILES = 7
    SEALED_DELIVERIES = 8
    SEALING_FAILURES = 9
    DAMAGED_SEGMENTS = 10

    SIGNATURES_VALID = 11
    SIGNATURES_INVALID = 12
    SIGNATURES_STALE = 13


_PASSING = (Word.SPOOL_TROUBLE, Word.LANDING_TROUBLE, Word.REGISTRY_TROUBLE, Word.WAITING_BYTES)


class Holder(IntEnum):
    """What kind of process holds, or held, a region."""

    NOBODY = 0
    WORKER = 1
    SEALER = 2


class Distribution(NamedTuple):
    """Where a histogram is kept: a word for each bound, one for what is above all, one for the sum.

    Bounds and sum are in ns, or pieces.
    """

    at: int
    bounds: tuple[int, ...]

    @property
    def sum_at(self) -> int:
        """Place of the sum."""
        return self.at + len(self.bounds) + 1

    @property
    def end(self) -> int:
        """Place behind it."""
        return self.sum_at + 1


REFUSED_AT = {reason: len(Word) + at for at, reason in enumerate(REFUSED_FOR)}
ACK = Distribution(len(Word) + len(REFUSED_FOR), _TIMES)
SYNC = Distribution(ACK.end, _TIMES)
BATCH = Distribution(SYNC.end, _SIZES)
WORDS = BATCH.end

# Of every request and every batch: plain numbers are looked up in a fifth of the time.
_BYTES_AT = int(Word.ACCEPTED_BYTES)
_ACK_AT, _ACK_SUM_AT = ACK.at, ACK.sum_at
_SYNC_AT, _SYNC_SUM_AT = SYNC.at, SYNC.sum_at
_BATCH_AT, _BATCH_SUM_AT = BATCH.at, BATCH.sum_at

_VERDICT_AT = {
    "valid": Word.SIGNATURES_VALID,
    INVALID: Word.SIGNATURES_INVALID,
    STALE: Word.SIGNATURES_STALE,
}

_WORD_BYTES = 8
# Whole pages, as mmap needs.
_REGION_BYTES = -(-WORDS * _WORD_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE


class Tally:
    """The region of one process; made without memory, it counts for nobody."""

    def __init__(self, memory: memoryview | None = None) -> None:
        self._words = (bytearray(_REGION_BYTES) if memory is None else memory)[
            : WORDS * _WORD_BYTES
        ]
        self._words = memoryview(self._words).cast("q")

    @classmethod
    def claim(cls, descriptor: int, holder: Holder) -> Self:
        """Take the first region that no living process holds, for as long as this one lives."""
        for number in count():
            start = number * _REGION_BYTES
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
            except OSError:
                continue
            if os.fstat(descriptor).st_size < start + _REGION_BYTES:
                os.ftruncate(descriptor, start + _REGION_BYTES)
            tally = cls(memoryview(mmap.mmap(descriptor, _REGION_BYTES, offset=start)))
            tally._begin(holder)
            return tally
        raise AssertionError("count never ends")

    def _begin(self, holder: Holder) -> None:
        for place in _PASSING:
            self._words[place] = 0
        self._words[Word.HOLDER] = holder
        self._words[Word.STARTS] += holder == Holder.WORKER

    def accepted(self, size: int, took_ns: int) -> None:
        """Count a delivery that was answered with 200."""
        words = self._words
        words[_BYTES_AT] += size
        words[_ACK_AT + bisect_left(_TIMES, took_ns)] += 1
        words[_ACK_SUM_AT] += took_ns

    def verified(self, verdict: str) -> None:
        """Count the verdict on a signature; of an accepted delivery whose signature was checked."""
        kind = verdict.partition(":")[0]
        self._words[_VERDICT_AT[kind]] += 1

    def refused(self, reason: str) -> None:
        """Count one that was not; the reason is one of `REFUSED_FOR`."""
        self._words[REFUSED_AT[reason]] += 1

    def synced(self, deliveries: int, took_ns: int) -> None:
        """Count a batch that was made durable."""
        words = self._words
        words[_SYNC_AT + bisect_left(_TIMES, took_ns)] += 1
        words[_SYNC_SUM_AT] += took_ns
        words[_BATCH_AT + bisect_left(_SIZES, deliveries)] += 1
        words[_BATCH_SUM_AT] += deliveries

    def sealed(self, deliveries: int) -> None:
        """Count a landing file."""
        self._words[Word.SEALED_FILES] += 1
        self._words[Word.SEALED_DELIVERIES] += deliveries

    def add(self, word: Word) -> None:
        """Count one more of what `word` counts."""
        self._words[word] += 1

    def note(self, word: Word, value: int) -> None:
        """Say how it stands now."""
        self._words[word] = value


class Figures(NamedTuple):
    """What all processes counted so far, and what those that live say of themselves."""

    totals: list[int]
    """A number for each word of a region, over all regions."""

    workers: list[list[int]]
    """The regions of living workers."""


def read_figures(descriptor: int) -> Figures:
    """Read all regions; not from a process that holds one, as its lock would be lost."""
    totals = [0] * WORDS
    workers = []
    for start in range(0, os.fstat(descriptor).st_size, _REGION_BYTES):
        content = os.pread(descriptor, WORDS * _WORD_BYTES, start)
        words = memoryview(content).cast("q").tolist()
        totals = [total + word for total, word in zip(totals, words, strict=True)]
        if words[Word.HOLDER] == Holder.WORKER and _is_held(descriptor, start):
            workers.append(words)
    return Figures(totals, workers)


def _is_held(descriptor: int, start: int) -> bool:
    """Tell whether a process holds a region; a process that begins just now takes another one."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, start)
    except OSError:
        return True
    fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, start)
    return False


def make_memory() -> int:
    """Return the descriptor of memory for `Tally.claim`; it is gone with its last holder."""
    return os.memfd_create("metrics")
