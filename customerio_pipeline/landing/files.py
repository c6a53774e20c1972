"""Names of landing files: a pure function of integration, sealing hour, writer and offsets."""

import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import NamedTuple, Self

_PATH = re.compile(
    r"integration=(?P<schema>[^/]+)/date=(?P<date>\d{4}-\d{2}-\d{2})/hour=(?P<hour>\d{2})/"
    r"(?P<writer>[0-9a-z]+)-(?P<first>\d+)-(?P<last>\d+)\.parquet"
)


class LandingFile(NamedTuple):
    """One landing file: offsets `first` to `last` (inclusive) of `writer`, sealed in `hour`."""

    schema: str
    day: date
    hour: int
    writer: str
    first: int
    last: int

    @classmethod
    def sealed_at(
        cls, moment: datetime, *, schema: str, writer: str, first: int, last: int
    ) -> Self:
        """Name the file for these offsets, sealed at `moment` (the folder is its UTC hour)."""
        moment = moment.astimezone(UTC)
        return cls(schema, moment.date(), moment.hour, writer, first, last)

    @classmethod
    def from_path(cls, relative: str) -> Self | None:
        """Read a name back from a path below the landing folder; None when it is no such file."""
        match = _PATH.fullmatch(relative)
        if match is None:
            return None
        return cls(
            match["schema"],
            date.fromisoformat(match["date"]),
            int(match["hour"]),
            match["writer"],
            int(match["first"]),
            int(match["last"]),
        )

    def has_all_of(self, other: Self) -> bool:
        """Tell whether another file of the folder and writer lies within the offsets of this one.

        Such a file is superseded: compaction made this one of it and others.
        """
        return (
            self != other
            and self[:4] == other[:4]
            and self.first <= other.first
            and other.last <= self.last
        )

    @property
    def hour_start(self) -> datetime:
        """When the hour of its folder began."""
        return datetime.combine(self.day, time(self.hour), UTC)

    @property
    def hour_end(self) -> datetime:
        """When that hour was over."""
        return self.hour_start + timedelta(hours=1)

    @property
    def relative_path(self) -> str:
        """Path below the landing folder, with ``/``."""
        return (
            f"integration={self.schema}/date={self.day.isoformat()}/hour={self.hour:02d}/"
            f"{self.writer}-{self.first:012d}-{self.last:012d}.parquet"
        )

    def path(self, landing: Path) -> Path:
        """Path in the `landing` folder."""
        return landing / self.relative_path
