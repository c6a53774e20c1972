"""What the sensor decides at a tick; pure, so that every case can be tested alone."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.reading import pending_files

REPORT_SECONDS = 60.0
"""New landing files are reported at once after a pause, else this often: a file is sealed every
second, and events of external assets stay in Dagster's storage for ever."""

NOTHING_NEW = "Nothing new in landing."

_SETTLED_SECONDS = 60.0
_FIRST_RETRY_SECONDS = 5.0
_LAST_RETRY_SECONDS = 300.0
_UNREADABLE = "unreadable"

Intervals = dict[str, list[tuple[int, int]]]


_NOTHING: Mapping[str, OffsetSet] = MappingProxyType({})


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """What one tick tells the next."""

    reported: Intervals = msgspec.field(default_factory=dict)
    """Landed offsets reported so far, by writer."""

    reported_at: float = 0.0
    settled: str = ""
    """Digest of what was landed, and released, when all of it was loaded."""

    settled_at: float = 0.0

    requests: int = 0
    """Runs requested so far; never falls, so that no run key is ever repeated."""

    attempts: int = 0
    """Requests since something was last loaded."""

    requested_at: float = 0.0
    loaded: str = ""
    """Digest of the loaded offsets at the last request."""

    @classmethod
    def from_text(cls, text: str | None) -> "Cursor":
        """Read the cursor back; one of another release or shape starts anew."""
        try:
            return msgspec.json.decode(text or "{}", type=cls)
        except msgspec.DecodeError:
            return cls()

    def to_text(self) -> str:
        """Return the cursor as Dagster keeps it."""
        return msgspec.json.encode(self).decode()


class LandedFiles(NamedTuple):
    """Landing files of one day that were not reported yet."""

    day: date
    files: Sequence[LandingFile]

    @property
    def deliveries(self) -> int:
        """Deliveries that the files' names promise."""
        return sum(file.last - file.first + 1 for file in self.files)

    @property
    def last_offsets(self) -> dict[str, int]:
        """Greatest offset by writer."""
        last: dict[str, int] = {}
        for file in self.files:
            last[file.writer] = max(file.last, last.get(file.writer, 0))
        return last


class Decision(NamedTuple):
    """Whether to request a run."""

    cursor: Cursor
    run_key: str | None
    """None: no run."""

    reason: str
    """Why there is none, or what for."""


def plan_reports(
    cursor: Cursor, files: Iterable[LandingFile], now: float
) -> tuple[Cursor, list[LandedFiles]]:
    """Pick the landing files to report, by day; `now` in seconds since the epoch."""
    if 0 <= now - cursor.reported_at < REPORT_SECONDS:
        return cursor, []
    reported = {writer: OffsetSet(intervals) for writer, intervals in cursor.reported.items()}
    new = pending_files(list(files), reported)
    if not new:
        return cursor, []
    by_day: defaultdict[date, list[LandingFile]] = defaultdict(list)
    for file in new:
        by_day[file.day].append(file)
        reported.setdefault(file.writer, OffsetSet()).add(file.first, file.last)
    cursor = msgspec.structs.replace(cursor, reported=_intervals(reported), reported_at=now)
    return cursor, [LandedFiles(day, by_day[day]) for day in sorted(by_day)]


def is_settled(
    cursor: Cursor,
    files: Sequence[LandingFile],
    now: float,
    released: Mapping[str, OffsetSet] = _NOTHING,
) -> bool:
    """Tell whether the warehouse need not be asked: nothing has landed since it had everything.

    It is asked once a minute all the same, for it may have been lost or rebuilt.
    """
    if not 0 <= now - cursor.settled_at < _SETTLED_SECONDS:
        return False
    return _digest(landed_offsets(files), released) == cursor.settled


def plan_run(
    cursor: Cursor,
    files: Sequence[LandingFile],
    loaded: Mapping[str, OffsetSet] | None,
    now: float,
    released: Mapping[str, OffsetSet] = _NOTHING,
) -> Decision:
    """Decide whether a run is needed, none being under way.

    Args:
        cursor: of the last tick.
        files: everything in landing.
        loaded: what the warehouse has settled; None when it cannot be read. A run is requested then
            all the same: it waits for the warehouse, or fails with the reason.
        now: seconds since the epoch.
        released: offsets of deliveries that may be held no more.
    """
    landed = _digest(landed_offsets(files), released)
    if loaded is None:
        waiting = landed != cursor.settled and bool(files)
    else:
        waiting = bool(pending_files(files, loaded))
    if not waiting:
        if loaded is not None:
            cursor = msgspec.structs.replace(cursor, settled=landed, settled_at=now, attempts=0)
        return Decision(cursor, None, NOTHING_NEW)
    loaded_digest = _UNREADABLE if loaded is None else _digest(loaded)
    attempts = cursor.attempts if loaded_digest == cursor.loaded else 0
    pause = _pause(attempts)
    elapsed = now - cursor.requested_at
    if 0 <= elapsed < pause:
        reason = f"{attempts} run(s) loaded nothing; the next in {pause - elapsed:.0f} s."
        return Decision(cursor, None, reason)
    requested = msgspec.structs.replace(
        cursor,
        requests=cursor.requests + 1,
        attempts=attempts + 1,
        requested_at=now,
        loaded=loaded_digest,
    )
    run_key = f"{landed}-{loaded_digest}-{requested.requests}"
    return Decision(requested, run_key, "New deliveries are waiting in landing.")


def _pause(attempts: int) -> float:
    """Return the seconds to leave after so many requests in vain."""
    if not attempts:
        return 0.0
    doublings = min(attempts - 1, 10)
    return min(_FIRST_RETRY_SECONDS * 2.0**doublings, _LAST_RETRY_SECONDS)


def _intervals(offsets: Mapping[str, OffsetSet]) -> Intervals:
    return {writer: [(first, last) for first, last in have] for writer, have in offsets.items()}


def _digest(*parts: Mapping[str, OffsetSet]) -> str:
    text = msgspec.json.encode([sorted(_intervals(part).items()) for part in parts if part])
    return hashlib.sha256(text).hexdigest()[:16]
