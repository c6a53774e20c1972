"""The live URLs as a worker knows them: a copy of the registry that a task keeps current.

The registry is asked for its generation twice a second, never once a request; so a revoked URL
stops within a second (design C8). An unknown token is the exception: as the URL may be brand-new,
and a 401 costs its sender an hour (customerio-webhooks 2), it is refused only after a look at the
registry that began after the request came.
"""

import asyncio
import hmac
from contextlib import suppress
from hashlib import sha256

import structlog

from customerio_pipeline.errors import RegistryError
from customerio_pipeline.registry.records import LiveUrl, RegistrySnapshot
from customerio_pipeline.registry.registry import Registry
from receiver.logs import log_unexpected
from receiver.refusals import NotStoredError, Refusal

_LOOK_EVERY_SECONDS = 0.5
# Guessed tokens must not make every request a query.
_LOOK_AT_MOST_EVERY_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0
_PREFIX_BYTES = 8

log = structlog.get_logger()


class LiveUrls:
    """Finds the URL of a token. Begin with `open`, end with `close`."""

    def __init__(self, registry_url: str) -> None:
        self._registry_url = registry_url
        self._registry: Registry | None = None
        self._generation: int | None = None
        self._urls: dict[bytes, list[LiveUrl]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

        self.trouble: str | None = "it was not read yet"
        """Why the last look at the registry failed, in words; None when it did not."""

    async def open(self) -> None:
        """Begin to look at the registry; one that cannot be read is tried again until it can."""
        self._task = asyncio.create_task(self._keep_looking())
        await self._fresh_look()

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._registry is not None:
            self._registry.close()

    async def find(self, token: str) -> LiveUrl | None:
        """Return the live URL of this token, None when there is none.

        Raises:
            NotStoredError: the token is unknown, yet the registry cannot be read now.
        """
        digest = sha256(token.encode()).digest()
        url = self._known(digest)
        if url is not None:
            return url
        if not await self._fresh_look():
            raise NotStoredError(Refusal.REGISTRY_UNREADABLE)
        return self._known(digest)

    def _known(self, digest: bytes) -> LiveUrl | None:
        for url in self._urls.get(digest[:_PREFIX_BYTES], ()):
            if hmac.compare_digest(url.token_hash, digest):
                return url
        return None

    async def _fresh_look(self) -> bool:
        """Wait for a look that begins from now on; tell whether it succeeded."""
        looked = asyncio.get_running_loop().create_future()
        self._waiting.append(looked)
        self._wake.set()
        try:
            await asyncio.wait_for(looked, _PATIENCE_SECONDS)
        except TimeoutError:
            return False
        return self.trouble is None

    async def _keep_looking(self) -> None:
        while True:
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            pause = asyncio.create_task(asyncio.sleep(_LOOK_AT_MOST_EVERY_SECONDS))
            await self._look()
            for looked in waiting:
                # Done already: it waited too long.
                if not looked.done():
                    looked.set_result(None)
            await pause
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _LOOK_EVERY_SECONDS)

    async def _look(self) -> None:
        try:
            snapshot = await asyncio.to_thread(self._read)
        except RegistryError as error:
            self._note(str(error))
        except Exception as error:  # noqa: BLE001  this task must outlive every error
            log_unexpected("registry_failed", error)
            self._note(type(error).__name__)
        else:
            self.trouble = None
            if snapshot is not None:
                self._take(snapshot)

    def _read(self) -> RegistrySnapshot | None:
        """Read the registry if it changed; runs in a thread, one at a time."""
        if self._registry is None:
            self._registry = Registry.open(self._registry_url)
        if self._registry.generation() == self._generation:
            return None
        return self._registry.snapshot()

    def _take(self, snapshot: RegistrySnapshot) -> None:
        urls: dict[bytes, list[LiveUrl]] = {}
        for url in snapshot.live_urls:
            urls.setdefault(url.token_hash[:_PREFIX_BYTES], []).append(url)
        self._urls = urls
        self._generation = snapshot.generation

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("registry_unreadable", reason=trouble)
        self.trouble = trouble
