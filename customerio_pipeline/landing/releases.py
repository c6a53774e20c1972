"""Releases: files beside the landing files that say which held deliveries are to be loaded.

Landing files never change, so a delivery that was held is released by one more file, as immutable
as they are: ``integration=<schema>/_releases/<ns since the epoch>-<6 hex digits>.json``. The tables
are made of both, whenever they are made.
"""

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.folders import make_folders, sync_entries_once, sync_folder
from customerio_pipeline.landing.offsets import OffsetSet

FOLDER = "_releases"

_SUFFIX = ".json"
_DISTINCT_BYTES = 3


class _Release(msgspec.Struct):
    released_at_ns: int
    offsets: dict[str, list[tuple[int, int]]]
    """Intervals by writer, first and last inclusive."""


_decoder = msgspec.json.Decoder(_Release)


class Releases:
    """The releases of one integration; a file is read once."""

    def __init__(self, landing: Path, schema: str) -> None:
        self._folder = _folder(landing, schema)
        self._read: set[str] = set()
        self._offsets: Mapping[str, OffsetSet] = {}

        self.damaged: dict[str, LandingError] = {}
        """Why files could not be read, by name; what they release stays held meanwhile."""

    def offsets(self) -> Mapping[str, OffsetSet]:
        """Return the offsets released so far, by writer; never changed afterwards."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  a list of names
        except (FileNotFoundError, NotADirectoryError):
            return self._offsets
        for name in sorted(set(names) - self._read):
            if not name.endswith(_SUFFIX) or name.startswith("."):
                continue
            try:
                found = _read(self._folder / name)
            except LandingError as error:
                self.damaged[name] = error
                continue
            offsets = {writer: OffsetSet(those) for writer, those in self._offsets.items()}
            for writer, intervals in found.offsets.items():
                offsets[writer] = OffsetSet([*offsets.get(writer, ()), *intervals])
            self._offsets = offsets
            self._read.add(name)
            self.damaged.pop(name, None)
        return self._offsets


def release(landing: Path, schema: str, offsets: Mapping[str, OffsetSet]) -> None:
    """Release held deliveries, durably: the next load takes them.

    Raises:
        OSError: nothing was released.
    """
    folder = _folder(landing, schema)
    make_folders(folder)
    sync_entries_once(folder, landing.parent)
    now_ns = time.time_ns()
    content = _Release(
        now_ns,
        {writer: [(first, last) for first, last in those] for writer, those in offsets.items()},
    )
    name = f"{now_ns}-{secrets.token_hex(_DISTINCT_BYTES)}{_SUFFIX}"
    temporary = folder / f".{name}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def _folder(landing: Path, schema: str) -> Path:
    return landing / f"integration={schema}" / FOLDER


def _read(path: Path) -> _Release:
    try:
        found = _decoder.decode(path.read_bytes())
        if any(first > last for those in found.offsets.values() for first, last in those):
            raise msgspec.ValidationError("an interval runs backwards")
    except (OSError, msgspec.DecodeError) as error:
        raise LandingError(
            f"The release {path.parent.name}/{path.name} cannot be read ({error}); restore it from"
            " a backup, or remove it and run `customerio-pipeline integrations reverify`."
        ) from None
    return found
