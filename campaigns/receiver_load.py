"""Load on a receiver that may die at any moment, and what it acknowledged."""

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress

_STORED = 200


class Load:
    """Clients that send bodies, each different from every other, as fast as they are answered."""

    def __init__(self, token: str, chance: random.Random) -> None:
        """Send nothing yet."""
        self._token = token
        self._chance = chance
        self.port = 0
        self.sent: set[bytes] = set()
        self.acknowledged: list[bytes] = []
        self.statuses: set[int] = set()

    async def run(self, clients: int, meanwhile: Awaitable[None]) -> None:
        """Send with so many clients until `meanwhile` is done."""
        tasks = [asyncio.create_task(self._client()) for _ in range(clients)]
        await meanwhile
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _client(self) -> None:
        while True:
            # The receiver is dead or dying; a sender tries again.
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._connection()
            await asyncio.sleep(0.02)

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while True:
                body = self._new_body()
                writer.write(
                    f"POST /v1/webhooks/{self._token} HTTP/1.1\r\nHost: a\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                self.sent.add(body)
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                self.statuses.add(status)
                if status == _STORED:
                    self.acknowledged.append(body)
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
        finally:
            writer.close()

    def _new_body(self) -> bytes:
        size = self._chance.choice((0, 10, 500, 2000, 4000, 50_000))
        return b"%d %s" % (len(self.sent), self._chance.randbytes(size))
