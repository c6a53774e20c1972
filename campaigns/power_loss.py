"""Cut the power at any moment: the real processes are recorded, the disk after the cut is made.

A receiver runs under strace, which writes down each write, sync, rename, removal and answer. From
that record come states of the disk as POSIX allows them after a power cut (`disk_record`). On each
a worker's journal is opened, one more delivery stored, and all is sealed. The control is the same
with syncs that do nothing (strace answers them itself): it has to lose something.
"""

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pyarrow import ArrowException

from campaigns.disk_record import CALLS, DiskRecord, Fate
from campaigns.landed_oracle import compare
from campaigns.receiver_process import SCHEMA, ReceiverProcess, create_integration
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from receiver.copied_slots import LOCK, note_identity
from receiver.journal import Journal
from receiver.numbering import Receipt
from receiver.sealing import seal_once

_CLIENTS = 8
_DELIVERIES = 60
_SIZES = (0, 100, 2000, 20_000)
_AFTERWARDS = b"stored after the power came back"

CONTROLS = {
    "no sync at all": "fsync,fdatasync",
    "batches not synced": "fdatasync",
    "files and folders not synced": "fsync",
}
"""Which calls do nothing in each control."""


class Cuts(NamedTuple):
    """What came of the power cuts on one record."""

    events: int
    syncs: int
    states: Counter[Fate]
    wrong: Counter[Fate]
    examples: list[str]


def is_possible() -> bool:
    """Tell whether strace is installed."""
    return shutil.which("strace") is not None


def run(folder: Path, states: int, seed: int, *, disabled: str = "") -> Cuts:
    """Record a receiver, then make and recover so many states.

    Args:
        folder: where the receiver works.
        states: how many.
        seed: of deliveries and cuts.
        disabled: system calls that do nothing, separated by commas.
    """
    chance = random.Random(seed)  # noqa: S311  seeded
    home = folder / "recorded"
    trace = folder / "trace"
    clients = _Clients(create_integration(home), chance)
    asyncio.run(_record(home, trace, clients, disabled))
    record = DiskRecord(home, trace)
    cuts = Cuts(len(record.events), record.syncs, Counter(), Counter(), [])
    memory = Path("/dev/shm")  # noqa: S108  to sync states of the disk costs minutes
    for _ in range(states):
        until = chance.randint(1, len(record.events))
        fate = chance.choice(list(Fate))
        acknowledged = [
            clients.bodies[port][number]
            for port, number in record.acknowledged(until)
            if port in clients.bodies  # others asked for its health
        ]
        place = tempfile.mkdtemp(prefix="cut-", dir=memory if memory.is_dir() else folder)
        try:
            record.write_state(until, fate, chance, Path(place))
            wrong = _recover(Path(place), acknowledged, clients.sent)
        finally:
            shutil.rmtree(place)
        cuts.states[fate] += 1
        if wrong:
            cuts.wrong[fate] += 1
            cuts.examples.append(f"cut after event {until}, {fate}: {'; '.join(wrong)}")
    shutil.rmtree(home)
    return cuts


def _recover(home: Path, acknowledged: Sequence[bytes], sent: set[bytes]) -> list[str]:
    """Do what a started receiver does; return what is wrong then."""
    spool, landing = home / "spool", home / "landing"
    for noted in spool.glob("*/identity"):
        # The disk is the same one; the state that was made of it is a copy to the receiver.
        (noted.parent / LOCK).touch()
        note_identity(noted.parent)
    try:
        journals = [Journal(spool) for _ in range(2)]
        for number, journal in enumerate(journals):
            journal.begin_segment()
            journal.write([_receipt(_AFTERWARDS + bytes([number]))])
            journal.sync()
        for journal in journals:
            journal.close()
        while seal_once(spool, landing):
            pass
        new = [_AFTERWARDS + bytes([number]) for number in range(2)]
        wrong = compare(landing, [*acknowledged, *new], sent | set(new))
    except (OSError, ArrowException) as error:
        return [f"{type(error).__name__}: {error}"]
    return wrong


def _receipt(body: bytes) -> Receipt:
    return Receipt(SCHEMA, "url_1", 1, "unchecked", (None,) * len(LANDED_HEADERS), body)


async def _record(home: Path, trace: Path, clients: "_Clients", disabled: str) -> None:
    inject = ("-e", f"inject={disabled}:retval=0") if disabled else ()
    prefix = (
        *("strace", "-f", "-qq", "-yy", "-xx", "-s", "1000000", "-e", "signal=none"),
        *("--seccomp-bpf", "-o", str(trace), "-e", f"trace={CALLS}", *inject),
    )
    receiver = ReceiverProcess(home, 2, prefix)
    try:
        port = await asyncio.to_thread(receiver.wait_ready)
        await clients.send(port, _DELIVERIES // 2)
        # Their successors go on with what they left.
        for child in ("worker", "sealer"):
            os.kill(receiver.pids(child)[0], signal.SIGKILL)
        await clients.send(port, _DELIVERIES // 2)
        supervisor = Path(f"/proc/{receiver.pid}/task/{receiver.pid}/children").read_text()  # noqa: ASYNC240
        os.kill(int(supervisor.split()[0]), signal.SIGTERM)
        await asyncio.to_thread(receiver.wait)
    finally:
        receiver.kill_all()


class _Clients:
    """Clients that send a delivery at a time, and what each sent, by the port it sent from."""

    def __init__(self, token: str, chance: random.Random) -> None:
        self._token = token
        self._chance = chance
        self.bodies: dict[int, list[bytes]] = {}
        self.sent: set[bytes] = set()

    async def send(self, port: int, deliveries: int) -> None:
        """Send so many from each client."""
        await asyncio.gather(*(self._client(port, deliveries) for _ in range(_CLIENTS)))

    async def _client(self, port: int, deliveries: int) -> None:
        left = deliveries
        while left:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                mine = self.bodies.setdefault(writer.get_extra_info("sockname")[1], [])
                try:
                    while left:
                        left -= 1
                        await self._deliver(reader, writer, mine)
                finally:
                    writer.close()

    async def _deliver(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mine: list[bytes]
    ) -> None:
        size = self._chance.choice(_SIZES)
        body = b"%d " % len(self.sent) + self._chance.randbytes(size)
        self.sent.add(body)
        mine.append(body)
        writer.write(
            f"POST /v1/webhooks/{self._token} HTTP/1.1\r\nHost: a\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
        await reader.readexactly(int(length))
