"""Compaction: the small files of an hour that is over become few.

The sealer writes a file about every second for each writer. A folder with fewer files is made
beside the hour's, and both change names in one step, so a listing shows one or the other. Killed
at any point, compaction leaves the hour whole under its name and something beside it, which the
next one removes.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import exchange_folders, make_alike, sync_folder
from customerio_pipeline.landing.joining import join_files, size_if_sound
from customerio_pipeline.landing.listing import files_in, without_superseded
from customerio_pipeline.landing.stillness import disturbed

MAX_ROWS = 125_000
MAX_BYTES = 128 * 1024 * 1024
"""Rows, and bytes before compression, of a file that is made of others: less than a load takes at
once, so loading all of landing again needs no more memory than it did."""

_REST = timedelta(minutes=10)
"""After the end of an hour; its last files may be written a little later."""

_LOCK = ".compaction.lock"
# Until the folders change names, no pattern of file names is to find what is not there yet.
_SUFFIX = ".new"


class Compaction(NamedTuple):
    """What was done to one integration."""

    schema: str
    hours: int
    """Folders that have fewer files now."""

    files_before: int
    """In those folders."""

    files_after: int
    busy: int
    """Folders left for the next time: somebody read all the while, or new files came."""

    problems: list[LandingError]
    """Why other folders stay as they are."""

    @property
    def sentence(self) -> str:
        """What was done, for a person."""
        done = (
            f"{self.files_before:,} files became {self.files_after:,}"
            if self.hours
            else "nothing to compact"
        )
        left = f"; hours in use, left for the next time: {self.busy:,}" if self.busy else ""
        return f"{self.schema}: {done}{left}"


class _Busy(Exception):  # noqa: N818  no error: there is a next time
    """A folder is left for the next time."""


def compact(
    landing: Path, schema: str, *, now: datetime | None = None, wait_seconds: float = 30.0
) -> Compaction:
    """Compact every hour of an integration that ended 10 minutes ago, oldest first.

    Args:
        landing: folder of the landing files.
        schema: of the integration.
        now: the time.
        wait_seconds: for readers that keep the files still, for each folder.

    Raises:
        LandingError: another process compacts the integration's files, the folder cannot be read
            or written, or its file system cannot exchange two folders.
    """
    until = (now or datetime.now(UTC)) - timedelta(hours=1) - _REST
    hours = before = after = busy = 0
    problems = []
    with alone(landing, schema) as folder:
        _check_exchange(folder)
        for hour in _hours(folder, until):
            try:
                counts = _compact_hour(landing, schema, hour, wait_seconds)
            except _Busy:
                busy += 1
            except LandingError as error:
                problems.append(error)
            except OSError as error:
                relative = hour.relative_to(landing)
                problems.append(LandingError(f"{relative} cannot be compacted: {error}."))
            else:
                hours += counts is not None
                before += counts[0] if counts else 0
                after += counts[1] if counts else 0
    return Compaction(schema, hours, before, after, busy, problems)


def plan_joins(
    files: Sequence[LandingFile], size_of: Callable[[LandingFile], int | None]
) -> list[list[LandingFile]]:
    """Group files of one folder that are to become one; those that stay are in no group.

    Args:
        files: of which none supersedes another.
        size_of: bytes of a file; None if it is to stay as it is. Asked only where it matters.
    """
    size_of = lru_cache(maxsize=None)(size_of)
    groups: list[list[LandingFile]] = []
    group: list[LandingFile] = []
    size = 0
    for file in sorted(files, key=lambda file: (file.writer, file.first)):
        if group and _follows(group, file):
            # Known already when the group has more than one.
            before = size if len(group) > 1 else size_of(group[0])
            added = size_of(file)
            if before is not None and added is not None and before + added <= MAX_BYTES:
                group.append(file)
                size = before + added
                continue
        groups.append(group)
        group = [file]
    return [group for group in [*groups, group] if len(group) > 1]


def _follows(group: Sequence[LandingFile], file: LandingFile) -> bool:
    return (
        group[-1].writer == file.writer
        and group[-1].last + 1 == file.first
        and file.last - group[0].first + 1 <= MAX_ROWS
    )


@contextmanager
def alone(landing: Path, schema: str) -> Iterator[Path]:
    """Yield the integration's folder, in which nobody else takes files away.

    Raises:
        LandingError: somebody else does, or the folder cannot be written.
    """
    folder = landing / f"integration={schema}"
    if not folder.is_dir():
        yield folder
        return
    lock = None
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    except BlockingIOError:
        raise LandingError(
            f"Another process compacts or removes landing files of {schema} now; try again later."
        ) from None
    except OSError as error:
        raise LandingError(
            f"The landing files of {schema} cannot be changed: {error.strerror or error}:"
            f" {error.filename}."
        ) from None
    finally:
        if lock is not None:
            os.close(lock)


def _check_exchange(folder: Path) -> None:
    """Try it with empty folders first: many files may have to be joined before it is needed."""
    if not folder.is_dir():
        return
    probes = [folder / f".exchange-{number}" for number in (1, 2)]
    try:
        for probe in probes:
            probe.mkdir(exist_ok=True)
        exchange_folders(*probes)
    except OSError as error:
        raise LandingError(
            f"The landing files of {folder.name.removeprefix('integration=')} stay as they are, for"
            f" two folders of their file system cannot be exchanged: {error.strerror or error}."
        ) from None
    finally:
        for probe in probes:
            with suppress(FileNotFoundError):
                probe.rmdir()


def _hours(folder: Path, until: datetime) -> Iterator[Path]:
    """Yield the folders of the hours that began by `until`."""
    for hour in sorted(folder.glob("date=*/hour=*")):
        try:
            began = datetime.strptime(
                f"{hour.parent.name}/{hour.name}+0000", "date=%Y-%m-%d/hour=%H%z"
            )
        except ValueError:
            continue
        if began <= until:
            yield hour


def _compact_hour(
    landing: Path, schema: str, hour: Path, wait_seconds: float
) -> tuple[int, int] | None:
    """Compact one folder; return its files before and after, None if it stays as it is."""
    beside = beside_of(hour)
    discard(beside, hour)
    names = _names(hour)
    present = files_in(hour)
    files = without_superseded(present)
    joins = plan_joins(files, lambda file: size_if_sound(landing, file))
    if not joins and len(files) == len(present):
        return None
    gone = {file.path(landing).name for file in {*present} - {*files}}
    gone.update(file.path(landing).name for join in joins for file in join)
    try:
        _build(landing, beside, hour, joins, names - gone)
        _change_places(landing, schema, beside, hour, names, wait_seconds)
    finally:
        discard(beside, hour)
    return len(present), len(files) - sum(len(join) - 1 for join in joins)


def _build(
    landing: Path,
    beside: Path,
    hour: Path,
    joins: Sequence[Sequence[LandingFile]],
    kept: Iterable[str],
) -> None:
    """Make the folder that is to be the hour's: new files, and those that stay."""
    beside.mkdir()
    make_alike(beside, hour)
    for join in joins:
        joined = join[0]._replace(last=join[-1].last).path(landing)
        made = beside / (joined.name + _SUFFIX)
        join_files(landing, join, made)
        make_alike(made, join[0].path(landing))
    for name in kept:
        os.link(hour / name, beside / (name + _SUFFIX))
    sync_folder(beside)


def _change_places(  # noqa: PLR0913, PLR0917  what changes places, and when
    landing: Path, schema: str, beside: Path, hour: Path, names: set[str], wait_seconds: float
) -> None:
    with disturbed(landing, schema, wait_seconds) as is_still:
        if not is_still or _names(hour) != names:
            raise _Busy
        for entry in list(beside.iterdir()):
            entry.rename(entry.with_name(entry.name.removesuffix(_SUFFIX)))
        # Not every file system keeps the order: the hour's folder must not come back without them.
        sync_folder(beside)
        exchange_folders(beside, hour)
        sync_folder(hour.parent)


def _names(hour: Path) -> set[str]:
    """Return the names in the folder but those that begin with a dot.

    Raises:
        LandingError: something in it is no file.
    """
    with os.scandir(hour) as entries:
        found = list(entries)
    for entry in found:
        if not entry.is_file():
            raise LandingError(f"{entry.path} is in the way of compaction: it is no file.")
    return {entry.name for entry in found if not entry.name.startswith(".")}


def beside_of(hour: Path) -> Path:
    """Return the folder beside that of an hour in which its files are joined."""
    return hour.with_name(f".{hour.name}.compacted")


def discard(beside: Path, hour: Path) -> None:
    """Remove a folder that is not that of the hour, or no more; what the hour lacks goes there.

    Only who is `alone` may do so.
    """
    try:
        names = sorted(os.listdir(beside))  # noqa: PTH208  a list of names
    except FileNotFoundError:
        return
    there = files_in(hour)
    relative = "/".join(hour.parts[-3:])
    for name in names:
        file = LandingFile.from_path(f"{relative}/{name}")
        if file is None or any(one == file or one.has_all_of(file) for one in there):
            (beside / name).unlink()
        else:
            (beside / name).rename(hour / name)
            sync_folder(hour)
    beside.rmdir()
    sync_folder(hour.parent)
