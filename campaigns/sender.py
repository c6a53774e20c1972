"""A sender as patient as Customer.io's: each event again and again, until it is stored."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from customerio_pipeline.simulator.events import SimulatedEvent

_STORED = 200
_PATIENCE_SECONDS = 4.0
"""How long Customer.io waits (customerio-webhooks 2)."""

_MOST_CONNECTIONS = 64

_PAUSE_SECONDS = 0.5
"""Before an event is sent again; Customer.io's hour would make a campaign of days."""


@dataclass(slots=True)
class Sender:
    """What was sent and what came of it."""

    port: int
    path: str
    acknowledged: Counter[bytes] = field(default_factory=Counter)
    """How often each body was answered with 200."""

    sent: Counter[bytes] = field(default_factory=Counter)
    """How often it was sent."""

    event_ids: set[str] = field(default_factory=set)
    """Of the acknowledged events of which rows can come."""

    answers: Counter[str] = field(default_factory=Counter)
    """By status, or by the kind of error where there was none."""

    _connections: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_MOST_CONNECTIONS)
    )

    last_at: float = field(default_factory=time.monotonic)
    """When an event was acknowledged last, on the monotonic clock."""

    async def run(
        self, events: Iterator[SimulatedEvent], rate: float, stopping: asyncio.Event
    ) -> None:
        """Send so many events a second until told to stop, then until all are acknowledged."""
        async with asyncio.TaskGroup() as tasks:
            due = time.monotonic()
            while not stopping.is_set():
                due += 1 / rate
                tasks.create_task(self._deliver(next(events)))
                await asyncio.sleep(max(0, due - time.monotonic()))

    async def _deliver(self, event: SimulatedEvent) -> None:
        async with self._connections:
            while not await self._is_stored(event.body):  # noqa: ASYNC110  not a condition
                await asyncio.sleep(_PAUSE_SECONDS)
        self.last_at = time.monotonic()
        self.acknowledged[event.body] += 1
        if event.event_id is not None and not event.malformed:
            self.event_ids.add(event.event_id)

    async def _is_stored(self, body: bytes) -> bool:
        self.sent[body] += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                status = await self._post(body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[str(status)] += 1
        return status == _STORED

    async def _post(self, body: bytes) -> int:
        """Send a body on a connection of its own; return the status of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"POST {self.path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            return int(head.split(b" ", 2)[1])
        finally:
            writer.close()
