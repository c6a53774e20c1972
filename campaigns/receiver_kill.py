"""Kill the receiver's processes with SIGKILL at random moments under load: nothing may be lost."""

import asyncio
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from campaigns.landed_oracle import compare
from campaigns.receiver_load import Load
from campaigns.receiver_process import (
    ReceiverProcess,
    create_integration,
    end_on_sigterm,
    wait_until_gone,
)

_CLIENTS = 16
_ROUNDS_IN_AN_INSTALLATION = 12
_AT_ONCE = 2
_LONGEST_PAUSE_SECONDS = 0.7
_PATIENCE_SECONDS = 60.0
_HEADER_BYTES = 1000
"""No header of a segment is longer here."""

# What a round kills; a killed parent makes the others drain, and everything is started anew.
_AIMS = ("a worker", "the sealer", "a worker and the sealer", "the parent", "everything at once")
_ENDS_IT = frozenset(_AIMS[3:])


class Killed(NamedTuple):
    """What came of the rounds."""

    rounds: Counter[tuple[int, str]]
    """By number of workers and what was killed."""

    sent: int
    acknowledged: int
    wrong: list[str]


def run(folder: Path, rounds: int, seed: int, tell: Callable[[str], None]) -> Killed:
    """Kill so often, with 1 and with 2 workers in turns; tell about each installation."""
    whole, rest = divmod(rounds, _ROUNDS_IN_AN_INSTALLATION)
    sizes = [_ROUNDS_IN_AN_INSTALLATION] * whole + [rest] * (rest > 0)
    numbers = range(1, len(sizes) + 1)
    homes = [folder / f"kill-{number}" for number in numbers]
    total = Killed(Counter(), 0, 0, [])
    # Two at a time: most of a round is waiting for processes to start.
    context = multiprocessing.get_context("spawn")
    # Left before its end, it sends SIGTERM to its processes.
    with context.Pool(_AT_ONCE, end_on_sigterm) as processes:
        seeds = [f"{seed}-{number}" for number in numbers]
        installations = zip(homes, numbers, sizes, seeds, strict=True)
        for found in processes.imap(_try_installation, installations):
            total = Killed(
                total.rounds + found.rounds,
                total.sent + found.sent,
                total.acknowledged + found.acknowledged,
                total.wrong + found.wrong,
            )
            tell(
                f"{total.rounds.total()} kills, {total.acknowledged} acknowledged,"
                f" {len(total.wrong)} wrong"
            )
    return total


def _try_installation(installation: tuple[Path, int, int, str]) -> Killed:
    home, number, rounds, seed = installation
    workers = 1 + number % 2
    chance = random.Random(seed)  # noqa: S311  seeded
    aims = [chance.choice(_AIMS) for _ in range(rounds)]
    load = Load(create_integration(home), chance)
    asyncio.run(_Installation(home, workers, load, chance).go(aims))
    wrong = compare(home / "landing", load.acknowledged, load.sent)
    if not load.statuses <= {200, 503}:
        wrong.append(f"answers other than 200 and 503: {sorted(load.statuses)}")
    wrong += [f"left in the spool: {path.name}" for path in _left(home)]
    if not wrong:
        shutil.rmtree(home)
    return Killed(
        Counter((workers, aim) for aim in aims),
        len(load.sent),
        len(load.acknowledged),
        [f"installation {number}: {what}" for what in wrong],
    )


class _Installation:
    def __init__(self, home: Path, workers: int, load: Load, chance: random.Random) -> None:
        self._home = home
        self._workers = workers
        self._load = load
        self._chance = chance
        self._receiver = ReceiverProcess(home, workers)

    async def go(self, aims: list[str]) -> None:
        """Send all the while, kill each aim in turn, then drain the receiver."""
        try:
            self._load.port = self._receiver.wait_ready()
            await self._load.run(_CLIENTS, self._kill(aims))
            self._receiver.stop()
            # What a process left that the last round killed: sealed by an undisturbed one.
            self._receiver = ReceiverProcess(self._home, self._workers)
            self._receiver.wait_ready()
            # A drain ends in time, sealed or not: what the kills piled up takes longer.
            await self._wait_for_sealing()
            self._receiver.stop()
        finally:
            self._receiver.kill_all()

    async def _kill(self, aims: list[str]) -> None:
        for aim in aims:
            await self._wait_for_acks()
            await asyncio.sleep(self._chance.uniform(0, _LONGEST_PAUSE_SECONDS))
            workers = self._receiver.pids("worker")[-self._workers :]
            if aim == "everything at once":
                self._receiver.kill_all()
            else:
                if "worker" in aim:
                    _kill(self._chance.choice(workers))
                if "sealer" in aim:
                    _kill(self._receiver.pids("sealer")[-1])
                if "parent" in aim:
                    _kill(self._receiver.pid)
                    await asyncio.to_thread(wait_until_gone, workers)
            if aim in _ENDS_IT:
                self._receiver.kill_all()
                self._receiver = ReceiverProcess(self._home, self._workers)
                self._load.port = await asyncio.to_thread(self._receiver.wait_ready)
        await self._wait_for_acks()

    async def _wait_for_sealing(self) -> None:
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while _left(self._home) and time.monotonic() < give_up_at:  # noqa: ASYNC110  a folder
            await asyncio.sleep(0.05)

    async def _wait_for_acks(self) -> None:
        """Wait until the load flows: a kill amid a standstill would try nothing."""
        enough = len(self._load.acknowledged) + 2 * _CLIENTS
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while len(self._load.acknowledged) < enough:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"Nothing is acknowledged any more: see {self._home}.")
            await asyncio.sleep(0.005)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _left(home: Path) -> list[Path]:
    """Return segments that hold more than a header after the last drain."""
    return [
        path
        for path in home.glob("spool/*/*")
        if path.suffix == ".damaged" or (path.suffix == ".segment" and _size(path) > _HEADER_BYTES)
    ]


def _size(path: Path) -> int:
    """Return the bytes of a segment; 0 when it is sealed meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
