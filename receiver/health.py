"""Health: ``/health/live`` for a supervisor, ``/health/ready`` for a load balancer and a person."""

from litestar import HttpMethod, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.status_codes import HTTP_200_OK, HTTP_503_SERVICE_UNAVAILABLE
from msgspec import UNSET, Struct, UnsetType

from receiver.live_urls import LiveUrls
from receiver.storage import Storage

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


@route("/health/live", http_method=_METHODS, sync_to_thread=False)
def live() -> dict[str, str]:
    """Answer as long as the worker runs."""
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
        is_ready = all(check.ok for check in checks.values())
        return Response(
            Readiness(is_ready, checks),
            status_code=HTTP_200_OK if is_ready else HTTP_503_SERVICE_UNAVAILABLE,
        )

    return ready


def _check(subject: str, trouble: str | None) -> Check:
    if trouble is None:
        return Check(ok=True)
    return Check(ok=False, reason=f"{subject} is not usable: {trouble}.")
