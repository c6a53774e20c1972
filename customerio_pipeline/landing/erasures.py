"""Erasures: files beside the landing files that say whose events are to be nowhere any more.

Landing is what the tables are made of, so it is here that an erasure is remembered: whatever comes
back of what was erased, from a repeated delivery, a backup or an import, is left out by every load.
A file never changes. It holds no address, no customer id and no event_id, only hashes of them,
salted: whoever has one can ask whether it was erased, nobody can read from the file who was.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import msgspec

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.offset_files import write_record

FOLDER = "_erasures"

_SUFFIX = ".json"
_NOTE = ".carried-out.json"
_RETURNED = ".returned-"
_SALT_BYTES = 16
_DIGEST_BYTES = 16


class Hashed(StrEnum):
    """What is hashed; equal values of two kinds have different hashes."""

    CUSTOMER_ID = "customer_id"
    EMAIL = "email"
    EVENT_ID = "event_id"


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One file: what was erased, in hashes."""

    erased_at_ns: int
    """Events that happened, or were received, up to then; ns since the epoch."""

    salt: str
    customer_ids: tuple[str, ...]
    emails: tuple[str, ...]
    event_ids: tuple[str, ...]
    """Of the events that were found; an event is erased in all of its versions."""


class CarriedOut(msgspec.Struct, frozen=True, kw_only=True):
    """How far erasures are carried out: a note that may be lost, everything is looked at then."""

    erasures: tuple[str, ...] = ()
    """Names of their files."""

    until_ns: int = 0
    """Folders that changed since then may hold something; ns since the epoch."""


class Returned(NamedTuple):
    """Deliveries in which something came back that was erased."""

    path: Path
    """Of the note, to be removed once it is seen to."""

    noted_ns: int
    """Ns since the epoch."""

    offsets: Mapping[str, Sequence[int]]
    """By writer."""


_decoder = msgspec.json.Decoder(Erasure)


class Erasures:
    """The erasures of one integration; each is read once."""

    def __init__(self, landing: Path, schema: str) -> None:
        """Begin with nothing read."""
        self._landing = landing
        self._folder = landing / f"integration={schema}" / FOLDER
        self._found: dict[str, Erasure] = {}
        self._all: Sequence[Erasure] = ()

        self.damaged: dict[str, LandingError] = {}
        """Why files could not be read, by name; what they say does not count meanwhile."""

    def read(self) -> Sequence[Erasure]:
        """Return all of them; the very same object as long as there is no new one."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208  a list of names
        except (FileNotFoundError, NotADirectoryError):
            return self._all
        for name in sorted(set(names) - self._found.keys()):
            if name.endswith(_SUFFIX) and not name.startswith("."):
                self._read_one(name)
        return self._all

    def _read_one(self, name: str) -> None:
        try:
            self._found[name] = _decoder.decode((self._folder / name).read_bytes())
        except (OSError, msgspec.DecodeError) as error:
            self.damaged[name] = LandingError(
                f"The erasure {FOLDER}/{name} cannot be read ({error}); restore it from a backup,"
                " or run `customerio-pipeline erase` again for whom it is about."
            )
        else:
            self.damaged.pop(name, None)
            self._all = tuple(self._found.values())

    def write(self, erasure: Erasure) -> str:
        """Add one, durably; return the name of its file.

        Raises:
            OSError: there is no new file.
        """
        return write_record(self._landing, self._folder, erasure.erased_at_ns, erasure)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those that were read."""
        return tuple(sorted(self._found))

    def salt(self) -> str:
        """Return the salt for the next one: that of the others, so that a value is hashed once."""
        return self._all[-1].salt if self._all else secrets.token_hex(_SALT_BYTES)

    def note_returned(self, places: Iterable[tuple[str, int]]) -> None:
        """Note deliveries, writer and offset, in which something came back that a load left out.

        The note may be lost: the hourly job looks for itself.
        """
        offsets: dict[str, list[int]] = {}
        for writer, offset in places:
            offsets.setdefault(writer, []).append(offset)
        if not offsets:
            return
        path = self._folder / f"{_RETURNED}{time.time_ns()}-{secrets.token_hex(3)}{_SUFFIX}"
        temporary = path.with_suffix(".tmp")
        with suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(offsets))
            temporary.replace(path)

    def returned(self) -> list[Returned]:
        """Return those notes, the oldest first."""
        found = []
        for path in sorted(self._folder.glob(f"{_RETURNED}*{_SUFFIX}")):
            # Another process may have seen to it.
            with suppress(OSError, msgspec.DecodeError):
                offsets = msgspec.json.decode(path.read_bytes(), type=dict[str, list[int]])
                noted_ns = int(path.name.removeprefix(_RETURNED).partition("-")[0])
                found.append(Returned(path, noted_ns, offsets))
        return found

    def carried_out(self) -> CarriedOut:
        """Return how far they are carried out."""
        try:
            return msgspec.json.decode((self._folder / _NOTE).read_bytes(), type=CarriedOut)
        except (OSError, msgspec.DecodeError):
            return CarriedOut()

    def note(self, carried_out: CarriedOut) -> None:
        """Note how far they are carried out.

        Raises:
            OSError: there is no such note.
        """
        temporary = self._folder / f"{_NOTE}.tmp"
        temporary.write_bytes(msgspec.json.encode(carried_out))
        temporary.replace(self._folder / _NOTE)


def hashed(salt: str, kind: Hashed, value: str) -> str:
    """Return the hash of a value: 128 bits of a keyed BLAKE2b, in hexadecimal digits."""
    return hashlib.blake2b(
        # A text of JSON may hold half a surrogate pair.
        value.encode(errors="surrogatepass"),
        key=salt.encode(),
        person=kind.encode(),
        digest_size=_DIGEST_BYTES,
    ).hexdigest()
