"""Immutable files beside the landing files that say something of some of their offsets.

``integration=<schema>/<folder>/<ns since the epoch>-<6 hex digits>.json``.
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

_SUFFIX = ".json"
_DISTINCT_BYTES = 3


class _Content(msgspec.Struct):
    offsets: dict[str, list[tuple[int, int]]]
    """Intervals by writer, first and last inclusive."""


_decoder = msgspec.json.Decoder(_Content)


class OffsetFiles:
    """The files of one folder; each is read once."""

    def __init__(self, folder: Path, what: str, advice: str) -> None:
        """Begin with nothing read; `what` and `advice` are for the error of a damaged file."""
        self._folder = folder
        self._what = what
        self._advice = advice
        self._read: set[str] = set()
        self._offsets: Mapping[str, OffsetSet] = {}

        self.damaged: dict[str, LandingError] = {}
        """Why files could not be read, by name; what they say does not count meanwhile."""

    def offsets(self) -> Mapping[str, OffsetSet]:
        """Return the offsets named so far, by writer; never changed afterwards."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  a list of names
        except (FileNotFoundError, NotADirectoryError):
            return self._offsets
        for name in sorted(set(names) - self._read):
            if not name.endswith(_SUFFIX) or name.startswith("."):
                continue
            try:
                found = self._content(self._folder / name)
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

    def _content(self, path: Path) -> _Content:
        try:
            found = _decoder.decode(path.read_bytes())
            if any(first > last for those in found.offsets.values() for first, last in those):
                raise msgspec.ValidationError("an interval runs backwards")
        except (OSError, msgspec.DecodeError) as error:
            raise LandingError(
                f"The {self._what} {path.parent.name}/{path.name} cannot be read ({error});"
                f" restore it from a backup{self._advice}."
            ) from None
        return found


def write_offsets(
    landing: Path, folder: Path, time_name: str, offsets: Mapping[str, OffsetSet]
) -> None:
    """Add a file, durably; its field `time_name` is the time of it, in ns since the epoch.

    Raises:
        OSError: there is no new file.
    """
    now_ns = time.time_ns()
    content = {
        time_name: now_ns,
        "offsets": {
            writer: [(first, last) for first, last in those] for writer, those in offsets.items()
        },
    }
    write_record(landing, folder, now_ns, content)


def write_record(landing: Path, folder: Path, now_ns: int, content: object) -> str:
    """Add a file of JSON, durably; return its name.

    Raises:
        OSError: there is no new file.
    """
    make_folders(folder)
    sync_entries_once(folder, landing.parent)
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
    return name
