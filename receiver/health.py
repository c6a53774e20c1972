"""Health: ``/health/live`` for a supervisor, ``/health/ready`` for a load balancer and a person.

A worker says how it is itself, the admin process how all are.
"""

import asyncio
from contextlib import suppress

from litestar import HttpMethod, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE
from msgspec import UNSET, Struct, UnsetType

from receiver.live_urls import LiveUrls
from receiver.metrics import Tally, Word, read_figures
from receiver.spool import Spool
from receiver.storage import Storage

_NOTE_EVERY_SECONDS = 0.5
_PARTS = {
    "spool": ("The spool", Word.SPOOL_TROUBLE),
    "landing": ("The landing folder", Word.LANDING_TROUBLE),
    "registry": ("The registry", Word.REGISTRY_TROUBLE),
}

# Load balancers ask with HEAD; the server leaves out the body then.
_METHODS = (HttpMethod.GET, HttpMethod.HEAD)


class Check(Struct, frozen=True):
    """One thing that a receiver needs."""

    ok: bool
    reason: str | UnsetType = UNSET
    """What is wrong, in words."""


class Readiness(Struct, frozen=True):
    """Whether deliveries are taken and landed now."""

    ready: bool
    checks: dict[str, Check]


class HealthNotes:
    """Notes twice a second, where the admin process reads it, how this worker is."""

    def __init__(self, tally: Tally, spool: Spool, storage: Storage, urls: LiveUrls) -> None:
        self._tally = tally
        self._spool = spool
        self._storage = storage
        self._urls = urls
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin; call it once the parts are open."""
        self._task = asyncio.create_task(self._keep_noting())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _keep_noting(self) -> None:
        while True:
            self._tally.note(Word.SPOOL_TROUBLE, self._storage.spool_trouble is not None)
            self._tally.note(Word.LANDING_TROUBLE, self._storage.landing_trouble is not None)
            self._tally.note(Word.REGISTRY_TROUBLE, self._urls.trouble is not None)
            self._tally.note(Word.WAITING_BYTES, self._spool.waiting_bytes)
            await asyncio.sleep(_NOTE_EVERY_SECONDS)


@route("/health/live", http_method=_METHODS, sync_to_thread=False)
def live() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "live"}


def ready_route(urls: LiveUrls, storage: Storage) -> HTTPRouteHandler:
    """Return the route that tells what is wrong, with 503, or 200 when nothing is."""

    @route("/health/ready", http_method=_METHODS, sync_to_thread=False)
    def ready() -> Response[Readiness]:
        checks = {
            "spool": _check("The spool", storage.spool_trouble),
            "landing": _check("The landing folder", storage.landing_trouble),
            "registry": _check("The registry", urls.trouble),
        }
        return _answer(checks)

    return ready


def ready_route_of_all(metrics: int) -> HTTPRouteHandler:
    """Return the route that tells, from the workers' notes, what is wrong with how many."""

    @route("/health/ready", http_method=_METHODS, sync_to_thread=False)
    def ready() -> Response[Readiness]:
        workers = read_figures(metrics).workers
        checks = {"workers": _check("The receiver", None if workers else "no worker lives")}
        for name, (subject, word) in _PARTS.items():
            troubled = sum(words[word] for words in workers)
            trouble = f"for {troubled} of {len(workers)} workers" if troubled else None
            checks[name] = _check(subject, trouble)
        return _answer(checks)

    return ready


def _answer(checks: dict[str, Check]) -> Response[Readiness]:
    is_ready = all(check.ok for check in checks.values())
    return Response(
        Readiness(is_ready, checks),
        status_code=HTTP_200_OK if is_ready else HTTP_503_SERVICE_UNAVAILABLE,
    )


def _check(subject: str, trouble: str | None) -> Check:
    if trouble is None:
        return Check(ok=True)
    return Check(ok=False, reason=f"{subject} is not usable: {trouble}.")
