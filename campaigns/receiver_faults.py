"""Let system calls of a running worker or sealer fail, each in turn: nothing lost, all recovers.

strace attaches to the process and answers its N-th open, write, sync, rename or removal with an
error instead of the kernel: ``EIO`` once, or ``ENOSPC`` from then on until strace lets go, as on a
disk that is full until somebody makes room. N counts up until a whole scenario has no N-th call.
"""

import asyncio
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from campaigns.failing_calls import INJECTED, failing
from campaigns.landed_oracle import compare
from campaigns.receiver_process import ReceiverProcess, create_integration
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.registry.registry import Registry
from receiver.journal import Journal
from receiver.numbering import Receipt

CALLS = {
    "worker": ("openat", "write", "writev", "fdatasync", "fsync", "rename", "unlink"),
    "sealer": ("openat", "write", "writev", "fdatasync", "fsync", "rename", "unlink", "mkdir"),
}
"""What fails, by process; some machines have other names for some of them."""

_ALSO_NAMED = {"rename": "renameat,renameat2", "unlink": "unlinkat", "mkdir": "mkdirat"}

MODES = {"EIO once": ("EIO", "{}"), "ENOSPC from then on": ("ENOSPC", "{}+")}
"""Error, and when, as strace writes it."""

_ROUNDS = 2
_AT_ONCE = 3
_ROUND_SECONDS = 0.6
_POLL_SECONDS = 0.02
_PATIENCE_SECONDS = 30.0
_SEGMENTS_AHEAD = 30
_SYNC = re.compile(r"\d+ +fdatasync\(\d+<([^>]*)>\) += ")


class Point(NamedTuple):
    """What is let fail."""

    child: str
    call: str
    mode: str
    number: int

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.child}, {self.call} {self.number}, {self.mode}"


class Failed(NamedTuple):
    """What came of all points."""

    points: Counter[tuple[str, str, str]]
    """How many were reached, by process, call and mode."""

    refused: Counter[tuple[str, str, str]]
    """How many deliveries got 503 meanwhile."""

    acknowledged: int
    wrong: list[str]


def run(folder: Path, most: int, only: Collection[str], tell: Callable[[str], None]) -> Failed:
    """Try every point, at most so many of each process, call and mode.

    `only` names calls; all when it is empty.
    """
    home = folder / "faults"
    create_integration(home)
    receiver = ReceiverProcess(home, 1)
    failed = Failed(Counter(), Counter(), 0, [])
    kinds = [
        (child, call, mode)
        for child, calls in CALLS.items()
        for call in calls
        if not only or call in only
        for mode in MODES
    ]
    try:
        trial = _Trial(home, receiver)
        for kind in kinds:
            _try_all(trial, failed, kind, most)
            tell(f"{', '.join(kind)}: {failed.points[kind]}, {len(failed.wrong)} wrong")
        failed.wrong.extend(trial.end())
    finally:
        receiver.kill_all()
    if not failed.wrong:
        shutil.rmtree(home)
    return failed._replace(acknowledged=len(trial.acknowledged))


def _try_all(trial: "_Trial", failed: Failed, kind: tuple[str, str, str], most: int) -> None:
    for number in range(1, most + 1):
        point = Point(*kind, number)
        is_reached, refused, wrong = asyncio.run(trial.go(point))
        failed.wrong.extend(f"{point}: {what}" for what in wrong)
        if not is_reached:
            break
        failed.points[kind] += 1
        failed.refused[kind] += refused


class _Trial:
    """One receiver that all points are tried on; it is never started again."""

    def __init__(self, home: Path, receiver: ReceiverProcess) -> None:
        self._home = home
        self._count = 0
        self.acknowledged: list[bytes] = []
        self._sent: set[bytes] = set()
        self._receiver = receiver
        self._port = receiver.wait_ready()

    async def go(self, point: Point) -> tuple[bool, int, list[str]]:
        """Send while the point fails; tell whether it was reached, what was refused, what is wrong.

        Every point has an integration of its own, so new streams and folders begin in each.
        """
        self._count += 1
        clients = _Clients(self._port, self._home, f"point_{self._count}")
        pid = self._receiver.pids(point.child)[-1]
        trace = self._home / "trace"
        # Slots of dead workers are the sealer's business, too.
        clients.leave_behind(self._home / "spool")
        with failing(pid, trace, self._injection(point, pid)):
            for _ in range(_ROUNDS):
                await clients.send(_AT_ONCE)
                await clients.wait_landed(_ROUND_SECONDS)
        wrong = await clients.recover()
        wrong += clients.wrong()
        self.acknowledged += clients.acknowledged
        self._sent |= clients.sent
        if self._receiver.logged("ended_unasked"):
            wrong.append("a process ended")
        lines = trace.read_text("latin-1").splitlines()
        is_reached = any(line.endswith(INJECTED) for line in lines)
        if is_reached and (point.child, point.call) == ("worker", "fdatasync"):
            wrong += _synced_in_vain(lines)
            if not clients.refused:
                wrong.append("nothing was refused")
        return is_reached, clients.refused, wrong

    def end(self) -> list[str]:
        """Drain the receiver; return what is wrong with all of landing."""
        self._receiver.stop()
        return compare(self._home / "landing", self.acknowledged, self._sent)

    def _injection(self, point: Point, pid: int) -> Iterator[str]:
        """Yield options of strace; those of a worker leave its sockets and its log alone."""
        names = ",".join(f"?{name}" for name in self._names(point.call))
        error, when = MODES[point.mode]
        yield from ("-e", f"trace={names}")
        yield from ("-e", f"inject={names}:error={error}:when={when.format(point.number)}")
        if point.child == "worker":
            for path in self._paths_of_worker(pid):
                yield from ("-P", str(path))

    def _paths_of_worker(self, pid: int) -> Iterator[Path]:
        landing, slot = self._home / "landing", self._home / "spool" / "0"
        yield from (landing / f".probe-{pid}", slot.parent, slot)
        newest = max(int(path.name[:12]) for path in slot.glob("*.segment"))
        for number in range(newest, newest + _SEGMENTS_AHEAD):
            yield slot / f"{number:012d}.segment"
            yield slot / f".{number:012d}.segment.tmp"

    @staticmethod
    def _names(call: str) -> list[str]:
        return [call, *filter(None, _ALSO_NAMED.get(call, "").split(","))]


class _Clients:
    """What is sent to one integration, and what came of it."""

    def __init__(self, port: int, home: Path, schema: str) -> None:
        self._port = port
        self._home = home
        self._schema = schema
        with closing(Registry.open(f"sqlite:///{home / 'registry.sqlite'}")) as registry:
            self._token = registry.create(schema)[1].token
        self.sent: set[bytes] = set()
        self.acknowledged: list[bytes] = []
        self.refused = 0
        self._broken: Counter[str] = Counter()

    def leave_behind(self, spool: Path) -> None:
        """Store a delivery as a worker does that dies then."""
        body = self._new_body()
        with closing(Journal(spool)) as journal:
            journal.begin_segment()
            headers = (None,) * len(LANDED_HEADERS)
            journal.write([Receipt(self._schema, "url_1", 1, "unchecked", headers, body)])
            journal.sync()
        self.acknowledged.append(body)

    async def send(self, count: int) -> None:
        """Send so many at the same time."""
        await asyncio.gather(*(self._deliver() for _ in range(count)))

    async def wait_landed(self, seconds: float) -> bool:
        """Wait until all that was acknowledged is landed; tell whether it is."""
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            if not self.wrong():
                return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    async def recover(self) -> list[str]:
        """Send until it is stored, then wait until it is landed; return what did not happen."""
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        before = len(self.acknowledged)
        refused = self.refused
        while len(self.acknowledged) == before:
            if time.monotonic() > give_up_at:
                return ["nothing is stored any more"]
            await self._deliver()
            await asyncio.sleep(_POLL_SECONDS)
        self.refused = refused
        return [] if await self.wait_landed(_PATIENCE_SECONDS) else ["not landed"]

    def wrong(self) -> list[str]:
        """Return what is wrong as of now."""
        landing = self._home / "landing"
        wrong = compare(landing, self.acknowledged, self.sent, integration=self._schema)
        return wrong + [f"{count} x {what}" for what, count in self._broken.items()]

    async def _deliver(self) -> None:
        body = self._new_body()
        try:
            status = await self._post(body)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._broken[f"no answer ({type(error).__name__})"] += 1
            return
        if status == 200:  # noqa: PLR2004
            self.acknowledged.append(body)
        elif status == 503:  # noqa: PLR2004
            self.refused += 1
        else:
            self._broken[f"answered {status}"] += 1

    async def _post(self, body: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                f"POST /v1/webhooks/{self._token} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            async with asyncio.timeout(_PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.read()
            return int(head.split(b" ", 2)[1])
        finally:
            writer.close()

    def _new_body(self) -> bytes:
        body = f"{self._schema} {len(self.sent)}".encode()
        self.sent.add(body)
        return body


def _synced_in_vain(lines: list[str]) -> list[str]:
    """Return the segments that were used after a sync of them failed.

    The kernel reports lost writes once; the next sync of the same file succeeds without them.
    """
    failed: set[str] = set()
    wrong = []
    for line in lines:
        sync = _SYNC.match(line)
        if sync is None:
            continue
        if sync[1] in failed:
            wrong.append(f"{sync[1]} was synced again after a failure")
        if line.endswith(INJECTED):
            failed.add(sync[1])
    return wrong
