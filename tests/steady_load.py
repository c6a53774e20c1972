"""A steady load, as Customer.io's servers make it, and everything that went wrong with it."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

# In all; the clients take turns, so that it is steady.
REQUESTS_PER_SECOND = 250
_BEAT_SECONDS = 0.01


class Answer(NamedTuple):
    """What came of a request."""

    begun_at: float
    """Monotonic clock."""

    token: str
    body: bytes
    status: int


class SteadyLoad:
    """Clients that each send at their moments, whatever happens to the receiver meanwhile.

    Half of them keep their connection as long as they may, the others take one for each request.
    """

    def __init__(self, token: str, port: int, clients: int = 20) -> None:
        """Send nothing yet."""
        self.tokens = (token,)
        """Of the URLs that are called in turn."""

        self._port = port
        self._clients = clients
        self.sent: set[bytes] = set()
        self.acknowledged: list[bytes] = []
        self.answers: list[Answer] = []
        self.worst_delay = 0.0
        """Seconds by which a wait was too long: how busy the machine is."""

        self.statuses: Counter[int] = Counter()
        self.last_answers = 0
        """Answers that said that the connection ends."""

        self.broken: list[str] = []
        """Requests that got no answer, and why."""

    def run_while(self, action: Callable[[], None]) -> None:
        """Send until `action` is over, which runs in a thread."""
        asyncio.run(self._run(action))

    async def _run(self, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.create_future()
        clients = [asyncio.create_task(self._client(at, end)) for at in range(self._clients)]
        clients.append(asyncio.create_task(self._watch_clock(end)))
        try:
            await asyncio.to_thread(action)
        finally:
            end.set_result(None)
            await asyncio.gather(*clients)

    async def _watch_clock(self, end: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        while not end.done():
            until = loop.time() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self.worst_delay = max(self.worst_delay, loop.time() - until)

    async def _client(self, number: int, end: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        interval = self._clients / REQUESTS_PER_SECOND
        at = loop.time() + interval * number / self._clients
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not end.done():
            await asyncio.sleep(at - loop.time())
            at += interval
            # Closed between two requests: a client of HTTP opens another one.
            is_over = connection is not None and connection[0].at_eof()
            try:
                if connection is None or is_over:
                    connection = await self._reconnect(connection)
                is_over = await self._request(*connection, ends=number % 2 == 0)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.broken.append(repr(error))
                is_over = True
            if is_over and connection is not None:
                connection[1].close()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _reconnect(
        self, old: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if old is not None:
            old[1].close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, ends: bool
    ) -> bool:
        """Send one request; tell whether the connection ends with its answer."""
        body = b"steady %d" % len(self.sent)
        token = self.tokens[len(self.sent) % len(self.tokens)]
        self.sent.add(body)
        begun_at = time.monotonic()
        writer.write(
            f"POST /v1/webhooks/{token} HTTP/1.1\r\nHost: a\r\n"
            f"{'Connection: close' if ends else 'X: y'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        status = int(head.split(b" ", 2)[1])
        self.statuses[status] += 1
        self.answers.append(Answer(begun_at, token, body, status))
        if status == 200:
            self.acknowledged.append(body)
        is_last = b"\r\nconnection: close\r\n" in head
        self.last_answers += is_last and not ends
        return is_last
