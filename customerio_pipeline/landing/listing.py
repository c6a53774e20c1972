"""Finding landing files without reading them."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.offsets import OffsetSet

# A folder changed this recently may get another file with the same modification time.
_SETTLED_NS = 2_000_000_000

_NOTHING: Mapping[str, OffsetSet] = MappingProxyType({})


class LandingListing:
    """The landing files of one integration, listed again only where a folder changed.

    New files only ever appear in the newest folders (design C3), yet a first listing, and any
    later one of a folder whose modification time moved, finds files wherever they are. Superseded
    ones are left out.
    """

    def __init__(self, landing: Path, schema: str) -> None:
        self._folder = landing / f"integration={schema}"
        self._landing = landing
        self._seen: dict[str, tuple[int, list[LandingFile]]] = {}

    def files(self) -> list[LandingFile]:
        """Return every file, oldest folder first, in the order of writer and offsets within."""
        current: dict[str, tuple[int, list[LandingFile]]] = {}
        for day in _folders(self._folder, "date="):
            for hour in _folders(day, "hour="):
                relative = str(hour.relative_to(self._landing))
                try:
                    modified = hour.stat().st_mtime_ns
                except FileNotFoundError:
                    continue
                known = self._seen.get(relative)
                if known is None or known[0] != modified:
                    found = without_superseded(files_in(hour))
                    known = (modified if _is_settled(modified) else -1, found)
                current[relative] = known
        self._seen = current
        return [file for relative in sorted(current) for file in current[relative][1]]


def landed_offsets(
    files: Iterable[LandingFile], expired: Mapping[str, OffsetSet] = _NOTHING
) -> dict[str, OffsetSet]:
    """Return the offsets that the names of `files` promise, by writer, and those `expired`."""
    offsets: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
    for writer, those in expired.items():
        offsets[writer] = OffsetSet(those)
    for file in files:
        offsets[file.writer].add(file.first, file.last)
    return dict(offsets)


def is_superseded(landing: Path, file: LandingFile) -> bool:
    """Tell whether a greater file of its folder has all that this one has, or had."""
    folder = file.path(landing).parent
    return any(other.has_all_of(file) for other in files_in(folder, file.writer))


def files_in(folder: Path, writer: str = "") -> list[LandingFile]:
    """Return every landing file of an hour's folder, superseded or not; or those of one writer."""
    relative = "/".join(folder.parts[-3:])
    try:
        names = os.listdir(folder)  # noqa: PTH208  a list of names, ten times faster
    except FileNotFoundError:
        return []
    files = (
        LandingFile.from_path(f"{relative}/{name}") for name in names if name.startswith(writer)
    )
    return [file for file in files if file is not None and writer in ("", file.writer)]


def without_superseded(files: Iterable[LandingFile]) -> list[LandingFile]:
    """Return the files of a folder that no other one supersedes, by writer and offsets."""
    kept: list[LandingFile] = []
    # The greatest of those that begin at the same offset comes first.
    for file in sorted(files, key=lambda file: (file.writer, file.first, -file.last)):
        if not (kept and kept[-1].has_all_of(file)):
            kept.append(file)
    return kept


def _folders(parent: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(prefix) and entry.is_dir()
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_settled(modified_ns: int) -> bool:
    return time.time_ns() - modified_ns > _SETTLED_NS
