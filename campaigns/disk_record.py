"""What processes did to a folder, read from what strace wrote: the disk as it may be after a cut.

Until it is synced, POSIX promises nothing of a write, nor of an entry of a folder: each may be on
the disk or not, in any order, and a write in part. A `DiskRecord` makes such states.
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

CALLS = "openat,write,writev,fsync,fdatasync,rename,unlink,unlinkat,mkdir,sendto,sendmsg"

_OF_PATHS = frozenset({"openat", "rename", "unlink", "unlinkat", "mkdir"})

_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_RESULT = re.compile(r"\) += (-?\d+)(.*)", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_OPENED = re.compile(r"\d+<([^>]*)>")
_CLIENT = re.compile(r"->127\.0\.0\.1:(\d+)")
_ANSWER = b"HTTP/1.1 "
_STORED = b"200"


class Fate(StrEnum):
    """What becomes of all that was not synced."""

    NOTHING_KEPT = "nothing of it is there"
    ALL_KEPT = "all of it is there"
    CHANCE = "each write and entry by chance, writes torn"
    FOLDERS_ONLY = "entries of folders are there, contents are not"


class File:
    """A file under whatever name; `writes` are appended to each other."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []


class Folder:
    """A folder."""


@dataclass
class _Entry:
    """A change of a folder: names that stand for a file from now on, or for nothing."""

    names: dict[str, File | Folder | None]


@dataclass
class Event:
    """One thing that happened; a sync says how many changes before it are safe."""

    file: File | None = None
    folder: Path | None = None
    entry: _Entry | None = None
    data: bytes | None = None
    safe: int | None = None
    answered_to: int | None = None
    """Port of the client that was told that its next delivery is stored, or not."""

    is_ack: bool = False


@dataclass
class _Names:
    """The folder as the processes see it."""

    files: dict[Path, File | Folder] = field(default_factory=dict)


class DiskRecord:
    """All events in the order of the trace."""

    def __init__(self, home: Path, trace: Path) -> None:
        self._roots = (home / "spool", home / "landing")
        self._home = home
        self._names = _Names()
        self._entries: defaultdict[Path, int] = defaultdict(int)
        self._begun: dict[str, tuple[str, str, Event | None]] = {}
        self.events: list[Event] = []
        self.syncs = 0
        with trace.open(encoding="latin-1") as lines:
            for line in lines:
                self._read(line.rstrip("\n"))

    def _read(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            return
        pid, rest = match.groups()
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            if pid in self._begun:
                name, begun, event = self._begun.pop(pid)
                self._end(name, begun, event, resumed[2])
            return
        call = _CALL.match(rest)
        if call is None:
            return
        name, arguments = call.groups()
        event = self._begin(name, arguments)
        if arguments.endswith("<unfinished ...>"):
            self._begun[pid] = (name, arguments, event)
        else:
            self._end(name, arguments, event, arguments)

    def _begin(self, name: str, arguments: str) -> Event | None:
        """Note what may take effect from now on, and how much a sync that begins now covers."""
        opened = _OPENED.match(arguments)
        if name in ("write", "writev", "sendto", "sendmsg") and opened is not None:
            data = b"".join(map(_bytes, _TEXT.findall(arguments[opened.end() :])))
            client = _CLIENT.search(arguments.split('"', 1)[0])
            if client is not None and data.startswith(_ANSWER):
                is_ack = data[len(_ANSWER) :].startswith(_STORED)
                return self._add(Event(answered_to=int(client[1]), is_ack=is_ack))
            file = self._names.files.get(Path(_decoded(opened[1])))
            if isinstance(file, File):
                file.writes.append(data)
                return self._add(Event(file=file, data=data))
        elif name in ("fsync", "fdatasync") and opened is not None:
            path = Path(_decoded(opened[1]))
            file = self._names.files.get(path)
            if isinstance(file, File):
                return Event(file=file, safe=len(file.writes))
            return Event(folder=path, safe=self._entries[path])
        return None

    def _end(self, name: str, arguments: str, event: Event | None, rest: str) -> None:
        result = _RESULT.search(rest)
        if result is None or int(result[1]) < 0:
            return
        if name in ("fsync", "fdatasync"):
            if event is not None and "INJECTED" not in result[2]:
                self.syncs += 1
                self._add(event)
            return
        if name not in _OF_PATHS:
            return
        paths = [Path(_bytes(text).decode()) for text in _TEXT.findall(arguments)]
        paths = [self._home / path for path in paths]
        if not paths or not any(paths[0].is_relative_to(root) for root in self._roots):
            return
        if name == "openat" and "O_CREAT" in arguments and paths[0] not in self._names.files:
            self._enter(paths[0].parent, {paths[0].name: File()})
        elif name == "mkdir":
            self._enter(paths[0].parent, {paths[0].name: Folder()})
        elif name in ("unlink", "unlinkat"):
            self._enter(paths[0].parent, {paths[0].name: None})
        elif name == "rename":
            source, target = paths
            moved = self._names.files[source]
            self._enter(source.parent, {source.name: None, target.name: moved})

    def _enter(self, folder: Path, names: dict[str, File | Folder | None]) -> None:
        for name, file in names.items():
            if file is None:
                self._names.files.pop(folder / name, None)
            else:
                self._names.files[folder / name] = file
        self._entries[folder] += 1
        self._add(Event(folder=folder, entry=_Entry(names)))

    def _add(self, event: Event) -> Event:
        self.events.append(event)
        return event

    def acknowledged(self, until: int) -> Iterator[tuple[int, int]]:
        """Yield client port and number of the deliveries acknowledged by the first events."""
        answers: defaultdict[int, int] = defaultdict(int)
        for event in self.events[:until]:
            if event.answered_to is not None:
                if event.is_ack:
                    yield event.answered_to, answers[event.answered_to]
                answers[event.answered_to] += 1

    def write_state(self, until: int, fate: Fate, chance: random.Random, target: Path) -> None:
        """Make in `target` what may be on the disk after a cut behind the first events."""
        contents: dict[int, list[bytes]] = defaultdict(list)
        entries: dict[Path, list[_Entry]] = defaultdict(list)
        safe: dict[object, int] = defaultdict(int)
        for event in self.events[:until]:
            key: object = event.folder if event.file is None else id(event.file)
            if event.safe is not None:
                safe[key] = max(safe[key], event.safe)
            elif event.data is not None:
                contents[id(event.file)].append(event.data)
            elif event.entry is not None and event.folder is not None:
                entries[event.folder].append(event.entry)
        kept = {
            number: _content(writes, safe[number], fate, chance)
            for number, writes in contents.items()
        }
        for folder, changes in entries.items():
            entries[folder] = [
                change
                for at, change in enumerate(changes)
                if at < safe[folder]
                or fate in (Fate.ALL_KEPT, Fate.FOLDERS_ONLY)
                or (fate is Fate.CHANCE and chance.random() < 0.5)  # noqa: PLR2004  either way
            ]
        self._make(self._home, target, entries, kept)

    def _make(
        self,
        folder: Path,
        target: Path,
        entries: dict[Path, list[_Entry]],
        contents: dict[int, bytes],
    ) -> None:
        target.mkdir(exist_ok=True)
        names: dict[str, File | Folder | None] = {}
        for entry in entries.get(folder, ()):
            names |= entry.names
        for name, file in names.items():
            if isinstance(file, Folder):
                self._make(folder / name, target / name, entries, contents)
            elif isinstance(file, File):
                (target / name).write_bytes(contents.get(id(file), b""))


def _content(writes: list[bytes], safe: int, fate: Fate, chance: random.Random) -> bytes:
    """Return what is there of a file; what is missing before something kept is zeros or rubbish."""
    durable = b"".join(writes[:safe])
    if fate is Fate.ALL_KEPT:
        return b"".join(writes)
    if fate is not Fate.CHANCE:
        return durable
    tail = bytearray()
    end = 0
    for data in writes[safe:]:
        how = chance.random()
        if how < 0.4:  # noqa: PLR2004  whole
            tail += data
            end = len(tail)
        elif how < 0.7:  # noqa: PLR2004  torn: the beginning, then what was on the disk before
            cut = chance.randrange(len(data) + 1)
            tail += data[:cut] + chance.choice((bytes, chance.randbytes))(len(data) - cut)
            end = len(tail) if chance.random() < 0.5 else len(tail) - len(data) + cut  # noqa: PLR2004
        else:
            tail += bytes(len(data))
    return durable + bytes(tail[:end])


def _decoded(name: str) -> str:
    return re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), name)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
