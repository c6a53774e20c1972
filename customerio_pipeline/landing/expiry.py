"""Expiry: days of landing that are older than is to be kept, and loaded, are removed.

What was removed stays on record, so that everything still adds up, and so that nobody makes tables
anew of what is left.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.compaction import alone
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import sync_folder
from customerio_pipeline.landing.listing import landed_offsets
from customerio_pipeline.landing.offset_files import OffsetFiles, write_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.stillness import disturbed

FOLDER = "_expired"

_GOING = ".expired-"


class Expirations(OffsetFiles):
    """The offsets of one integration whose files were removed, since they were old and loaded."""

    def __init__(self, landing: Path, schema: str) -> None:
        """Begin with nothing read."""
        super().__init__(_folder(landing, schema), "record of expired deliveries", "")

    def gone(self, files: Iterable[LandingFile]) -> dict[str, OffsetSet]:
        """Return those that are in none of `files`: some may be back from a backup."""
        there = landed_offsets(files)
        gone = {
            writer: offsets.without(there.get(writer, OffsetSet()))
            for writer, offsets in self.offsets().items()
        }
        return {writer: offsets for writer, offsets in gone.items() if len(offsets)}

    def check_readable(self) -> None:
        """Check that no record is damaged.

        Raises:
            LandingError: one is.
        """
        self.offsets()
        for error in self.damaged.values():
            raise error


class Expiry(NamedTuple):
    """What was done to one integration."""

    schema: str
    days: Sequence[date]
    """Removed."""

    deliveries: int
    """That were in their files."""

    kept: Sequence[str]
    """Why other days that are old enough are still there, a sentence each."""

    @property
    def sentence(self) -> str:
        """What was done, for a person."""
        if not self.days:
            return f"{self.schema}: nothing expired"
        days = f"{self.days[0]} to {self.days[-1]}" if len(self.days) > 1 else f"{self.days[0]}"
        return f"{self.schema}: {self.deliveries:,} deliveries of {days} removed from landing"


def expire(  # noqa: PLR0913  what may be removed
    landing: Path,
    schema: str,
    settled: Mapping[str, OffsetSet],
    held: Mapping[str, OffsetSet],
    *,
    days: int,
    now: datetime | None = None,
    wait_seconds: float = 30.0,
) -> Expiry:
    """Remove the days of an integration that are older than `days`, oldest first.

    A day of which one delivery is not settled, or is held, stays whole. Killed at any point, it
    leaves a day that is on record as removed and still there in part; the next one finishes.

    Args:
        landing: folder of the landing files.
        schema: of the integration.
        settled: offsets that are loaded for good, by writer.
        held: offsets of deliveries that a key may still release.
        days: how many are kept besides today.
        now: the time.
        wait_seconds: for readers that keep the files still.

    Raises:
        LandingError: somebody else takes files away, or one cannot be removed.
    """
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    gone: list[date] = []
    deliveries = 0
    kept = []
    with alone(landing, schema) as folder:
        finish(landing, schema, folder)
        for path in sorted(folder.glob("date=*")):
            day = _day(path)
            if day is None or (today - day).days <= days:
                continue
            with disturbed(landing, schema, wait_seconds) as is_still:
                reason = None if is_still else "is being read"
                files = _files(path)
                reason = reason or _reason_to_stay(path, files, settled, held)
                if reason is not None:
                    kept.append(f"{path.relative_to(landing)} {reason}.")
                    continue
                offsets = landed_offsets(files)
                write_offsets(landing, _folder(landing, schema), "expired_at_ns", offsets)
                going = path.rename(path.with_name(f"{_GOING}{path.name}"))
                sync_folder(folder)
            shutil.rmtree(going)
            gone.append(day)
            deliveries += sum(map(len, offsets.values()))
    return Expiry(schema, gone, deliveries, kept)


def finish(landing: Path, schema: str, folder: Path) -> None:
    """Remove what one that was killed left: it is on record. Only who is `alone` may do so.

    Raises:
        LandingError: something in it is not on record.
    """
    for going in folder.glob(f"{_GOING}date=*"):
        if _are_among(_files(going), Expirations(landing, schema).offsets()):
            shutil.rmtree(going)
        else:
            raise LandingError(
                f"{going} has files that are not on record as expired; give it back its name,"
                f" {going.name.removeprefix(_GOING)}."
            )


def _day(path: Path) -> date | None:
    try:
        return date.fromisoformat(path.name.removeprefix("date="))
    except ValueError:
        return None


def _files(day: Path) -> list[LandingFile]:
    """Return the files of a day, also when its folder has the name of one that is going."""
    named = f"{day.parent.name}/{day.name.removeprefix(_GOING)}"
    found = (
        LandingFile.from_path(f"{named}/{path.parent.name}/{path.name}")
        for path in day.glob("hour=*/*")
    )
    return [file for file in found if file is not None]


def _reason_to_stay(
    day: Path,
    files: Sequence[LandingFile],
    settled: Mapping[str, OffsetSet],
    held: Mapping[str, OffsetSet],
) -> str | None:
    names = {file.path(day.parent.parent) for file in files}
    for path in day.rglob("*"):
        if path.is_dir():
            if not path.name.startswith("hour="):
                return f"holds {path.name}, which is no hour"
        elif path not in names and not path.name.startswith("."):
            return f"holds {path.name}, which is no landing file"
    if not _are_among(files, settled):
        return "holds deliveries that are not loaded"
    nothing = OffsetSet()
    if any(len(held.get(file.writer, nothing).within(file.first, file.last)) for file in files):
        return "holds deliveries that no signing key signed"
    return None


def _are_among(files: Sequence[LandingFile], offsets: Mapping[str, OffsetSet]) -> bool:
    return all(
        file.writer in offsets and offsets[file.writer].covers(file.first, file.last)
        for file in files
    )


def _folder(landing: Path, schema: str) -> Path:
    return landing / f"integration={schema}" / FOLDER
