"""Sending as Customer.io does: 4 s a call, retries with back-off, one event after the other.

Customer.io repeats a call for seven days, waits an hour after certain answers and errors, and
holds back every later event meanwhile (customerio-webhooks 2). Here these times are scaled down
(`Patience`); the order of things is the same.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from customerio_pipeline.simulator.events import SimulatedEvent
from customerio_pipeline.simulator.signing import sign

TIMEOUT_SECONDS = 4.0
USER_AGENT = "Customer.io Web Hooks (simulated by customerio-pipeline)"

# Answers after which Customer.io waits an hour; so it does after a refused or reset connection.
_LONG_WAIT_CODES = frozenset({400, 401, 402, 403, 404, 405, 410, 429, 500, 502, 521})


class Patience(NamedTuple):
    """Waiting times of the sender, in seconds."""

    first_wait: float = 0.25
    """After the first failure; doubled after each further one of the same event."""

    longest_wait: float = 8.0
    hour: float = 5.0
    """Stands for the hour."""

    give_up: float = 120.0
    """Stands for the seven days after which an event is dropped and the queue moves on."""


@dataclass
class Summary:
    """What came of a simulation; ``sent = acknowledged + failed`` at its end."""

    sent: int = 0
    """Bodies sent at least once."""

    acknowledged: int = 0
    retried: int = 0
    """Calls that repeated an earlier one."""

    failed: int = 0
    """Bodies given up, or not yet acknowledged when the simulation was stopped."""

    seconds: float = 0.0

    @property
    def events_per_second(self) -> float:
        """Return the acknowledged bodies per second."""
        return self.acknowledged / self.seconds if self.seconds else 0.0


class _Failure(NamedTuple):
    """Why a call did not succeed; never with the URL in it."""

    reason: str
    is_long: bool


async def send(  # noqa: PLR0913  each is a property of the sender
    url: str,
    events: Iterable[SimulatedEvent],
    *,
    rate: float | None = None,
    concurrency: int = 1,
    signing_key: str | None = None,
    stop: asyncio.Event | None = None,
    patience: Patience | None = None,
    on_acknowledged: Callable[[SimulatedEvent], None] | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> Summary:
    """Send `events` to the webhook `url` until they end or `stop` is set.

    Args:
        url: a webhook URL; it never shows in a log or error.
        events: taken as they are needed.
        rate: events a second at most; as fast as the receiver allows when None.
        concurrency: connections; on each, an event waits until the one before it is settled.
        signing_key: signs the calls; they are unsigned when None.
        stop: ends the simulation, calls under way excepted.
        patience: waiting times after failures.
        on_acknowledged: called with each event that the receiver took.
        on_failure: called with the reason of each call that failed.
    """
    # It logs whole URLs, and the token is part of ours.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sender = _Sender(
        httpx.URL(url),
        iter(events),
        rate,
        signing_key,
        stop or asyncio.Event(),
        patience or Patience(),
        on_acknowledged or _ignore,
        on_failure or _ignore,
    )
    return await sender.run(concurrency)


def _ignore(_: object) -> None:
    pass


@dataclass
class _Sender:
    url: httpx.URL = field(repr=False)
    events: Iterator[SimulatedEvent]
    rate: float | None
    signing_key: str | None = field(repr=False)
    stop: asyncio.Event
    patience: Patience
    on_acknowledged: Callable[[SimulatedEvent], None]
    on_failure: Callable[[str], None]
    summary: Summary = field(default_factory=Summary)
    started: float = field(default_factory=time.monotonic)
    taken: int = 0

    async def run(self, concurrency: int) -> Summary:
        ssl_context = httpx.create_ssl_context(trust_env=False)
        async with asyncio.TaskGroup() as connections:
            for _ in range(concurrency):
                connections.create_task(self._connection(ssl_context))
        self.summary.seconds = time.monotonic() - self.started
        return self.summary

    async def _connection(self, ssl_context: ssl.SSLContext) -> None:
        # A client each: one with many connections spends most of its time choosing among them.
        async with httpx.AsyncClient(
            headers={"Content-Type": "application/json", "User-Agent": USER_AGENT},
            limits=httpx.Limits(max_connections=1, keepalive_expiry=None),
            timeout=TIMEOUT_SECONDS,
            # Customer.io does not go through this machine's proxy.
            trust_env=False,
            verify=ssl_context,
        ) as client:
            for event in self.events:
                due = self.started + self.taken / self.rate if self.rate else 0
                self.taken += 1
                if await self._is_stopped_within(due - time.monotonic()):
                    return
                await self._settle(client, event)

    async def _settle(self, client: httpx.AsyncClient, event: SimulatedEvent) -> None:
        """Repeat the call until the event is acknowledged, given up, or all is stopped."""
        self.summary.sent += 1
        give_up = time.monotonic() + self.patience.give_up
        wait = self.patience.first_wait
        while failure := await self._call(client, event.body):
            self.on_failure(failure.reason)
            pause = self.patience.hour if failure.is_long else wait
            wait = min(2 * wait, self.patience.longest_wait)
            if time.monotonic() + pause > give_up or await self._is_stopped_within(pause):
                self.summary.failed += 1
                return
            self.summary.retried += 1
        self.summary.acknowledged += 1
        self.on_acknowledged(event)

    async def _call(self, client: httpx.AsyncClient, body: bytes) -> _Failure | None:
        timestamp = int(time.time())
        headers = {"X-CIO-Timestamp": str(timestamp)}
        if self.signing_key is not None:
            headers["X-CIO-Signature"] = sign(self.signing_key, timestamp, body)
        try:
            # The client's own limit is one for each step of a call.
            async with asyncio.timeout(TIMEOUT_SECONDS):
                response = await client.post(self.url, content=body, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            return _Failure(f"no answer within {TIMEOUT_SECONDS:g} s", is_long=False)
        except httpx.TransportError as error:
            return _Failure(f"connection failed: {type(error).__name__}", is_long=True)
        if response.is_success:
            return None
        return _Failure(f"HTTP {response.status_code}", response.status_code in _LONG_WAIT_CODES)

    async def _is_stopped_within(self, seconds: float) -> bool:
        if seconds <= 0:
            return self.stop.is_set()
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return False
        return True
