"""What arrived lately, counted from landing by minute and webhook URL."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.reading import pending_files
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.registry.steps import MAX_LIVE_URLS

WINDOW = timedelta(hours=24)
"""How far back calls are counted."""

# Customer.io sleeps that long after some answers, then calls again (customerio-webhooks 2).
_QUIET = timedelta(hours=1)

_MINUTE = 60
_COUNTS = """
SELECT url_id, epoch_us(received_at) // 60000000 AS minute, count(*), max(received_at)
FROM read_parquet(?, hive_partitioning = false)
GROUP BY ALL
"""
_LAST_USED = """
SELECT url_id, max(received_at) FROM read_parquet(?, hive_partitioning = false) GROUP BY ALL
"""


@dataclass(frozen=True, slots=True)
class UrlUse:
    """How a webhook URL is used."""

    calls: int
    """Deliveries in the last 24 h."""

    last_used: datetime | None
    """Receipt of the newest delivery; None when there was none since the URL was made."""


def safe_to_revoke(
    live: Sequence[str], uses: Mapping[str, UrlUse], now: datetime
) -> frozenset[str]:
    """Return the older of two live URLs once it is quiet and the newer one is in use.

    Args:
        live: ids, the oldest first.
        uses: of each.
        now: the time.
    """
    if len(live) < MAX_LIVE_URLS or not uses:
        return frozenset()
    older, newer = (uses[url_id].last_used for url_id in live[:2])
    is_quiet = older is None or older < now - _QUIET
    is_used = newer is not None and (older is None or newer > older)
    return frozenset(live[:1] if is_quiet and is_used else ())


class Activity:
    """The deliveries of one integration, counted; each landing file is read once.

    Safe to use from several threads.
    """

    def __init__(self, landing: Path, schema: str) -> None:
        self._landing = landing
        self._schema = schema
        self._listing = LandingListing(landing, schema)
        self._lock = threading.Lock()
        self._forget()

    def last_received(self, now: datetime) -> datetime | None:
        """Return when the newest delivery of the last 24 h was received.

        Raises:
            LandingError: the landing files cannot be read.
        """
        with self._lock, kept_still(self._landing, self._schema):
            self._look(now)
            return max(self._newest.values(), default=None)

    def per_minute(self, now: datetime, minutes: int) -> list[int]:
        """Return the deliveries of each of the last `minutes`, the oldest first.

        The last one is the minute that has just begun.

        Raises:
            LandingError: the landing files cannot be read.
        """
        this = int(now.timestamp()) // _MINUTE
        with self._lock, kept_still(self._landing, self._schema):
            self._look(now)
            return [
                sum(counts[minute] for counts in self._calls.values())
                for minute in range(this - minutes + 1, this + 1)
            ]

    def use_of_urls(self, now: datetime, made_at: Mapping[str, datetime]) -> Mapping[str, UrlUse]:
        """Return the use of URLs.

        Args:
            now: the time.
            made_at: when each was made, by its id: older landing files are not looked through.

        Raises:
            LandingError: the landing files cannot be read.
        """
        with self._lock, kept_still(self._landing, self._schema):
            files = self._look(now)
            self._find_last_used(files, now, made_at)
            return {
                url_id: UrlUse(
                    self._calls.get(url_id, Counter()).total(),
                    self._newest.get(url_id) or self._older.get(url_id),
                )
                for url_id in made_at
            }

    def _forget(self) -> None:
        self._seen: dict[str, OffsetSet] = {}
        self._calls: dict[str, Counter[int]] = {}
        self._newest: dict[str, datetime] = {}
        self._older: dict[str, datetime | None] = {}

    def _look(self, now: datetime) -> Sequence[LandingFile]:
        """Count what is new; return all files."""
        since = now - WINDOW
        files = self._listing.files()
        lately = [file for file in files if _sealed_until(file) >= since]
        new = pending_files(lately, self._seen)
        if any(
            len(self._seen.get(file.writer, OffsetSet()).within(file.first, file.last))
            for file in new
        ):
            # A file that joins counted and uncounted ones: nothing is counted twice.
            self._forget()
            new = lately
        for url_id, minute, count, newest in self._read(_COUNTS, new):
            self._calls.setdefault(url_id, Counter())[minute] += count
            self._newest[url_id] = max(newest, self._newest.get(url_id, newest))
        for file in new:
            self._seen.setdefault(file.writer, OffsetSet()).add(file.first, file.last)
        first = int(since.timestamp()) // _MINUTE
        for counts in self._calls.values():
            for minute in [minute for minute in counts if minute < first]:
                del counts[minute]
        return files

    def _find_last_used(
        self, files: Sequence[LandingFile], now: datetime, made_at: Mapping[str, datetime]
    ) -> None:
        """Look for URLs without a call in the window, back to when they were made."""
        wanted = {
            url_id: made
            for url_id, made in made_at.items()
            if url_id not in self._newest and url_id not in self._older
        }
        older = [file for file in files if _sealed_until(file) < now - WINDOW]
        days = groupby(
            sorted(older, key=lambda file: file.day, reverse=True), lambda file: file.day
        )
        for day, those in days:
            wanted = {url_id: made for url_id, made in wanted.items() if made.date() <= day}
            if not wanted:
                break
            for url_id, newest in self._read(_LAST_USED, those):
                if wanted.pop(url_id, None):
                    self._older[url_id] = newest
        for url_id in made_at:
            self._older.setdefault(url_id, None)

    def _read(self, query: str, files: Iterable[LandingFile]) -> Sequence[tuple[Any, ...]]:
        paths = [str(file.path(self._landing)) for file in files]
        if not paths:
            return []
        try:
            # One thread: whoever looks shall not slow down who receives.
            with closing(duckdb.connect(config={"threads": 1})) as engine:
                engine.execute("SET TimeZone = 'UTC'")
                return engine.execute(query, [paths]).fetchall()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise LandingError(f"The landing files cannot be read: {reason}.") from None


def _sealed_until(file: LandingFile) -> datetime:
    day = datetime(file.day.year, file.day.month, file.day.day, tzinfo=UTC)
    return day + timedelta(hours=file.hour + 1)
