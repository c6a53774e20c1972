"""Signing in and out."""

import math
import re
from typing import Any

import structlog
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.status_codes import HTTP_401_UNAUTHORIZED, HTTP_429_TOO_MANY_REQUESTS

from customerio_pipeline.management.pages import Form, PageRequest, page, see
from customerio_pipeline.management.passwords import is_password
from customerio_pipeline.management.services import Services
from customerio_pipeline.management.sessions import (
    begin_session,
    client,
    cookie_token,
    end_session,
    is_signed_in,
    new_token,
    session_cookie,
)

# Of this site only: "//elsewhere" would be another's.
_LOCAL_PATH = re.compile(r"/(?:[a-z0-9_-]+(?:/[a-z0-9_-]+)*)?")
_LONGEST = 1000

log = structlog.get_logger()


@get("/sign-in", sync_to_thread=True)
def show_sign_in(request: PageRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Ask for the password."""
    wanted = request.query_params.get("next", "/")
    if is_signed_in(request):
        return see(_local(wanted))
    token = cookie_token(request) or new_token()
    answer = _form(request, services, wanted, token=token)
    answer.set_cookie(session_cookie(request, token))
    return answer


@post("/sign-in", sync_to_thread=True)
def sign_in(
    request: PageRequest, services: NamedDependency[Services], form: NamedDependency[Form]
) -> Response[Any]:
    """Open a session for who knows the password."""
    who = client(request)
    wanted = form.get("next", "/")
    wait = services.attempts.begin(who)
    if wait:
        log.warning("sign_in_limited", client=who)
        minutes = math.ceil(wait / 60)
        problem = f"Too many attempts. Try again in {minutes} minute{'s'[: minutes != 1]}."
        answer = _form(request, services, wanted, HTTP_429_TOO_MANY_REQUESTS, problem=problem)
        answer.headers["retry-after"] = str(math.ceil(wait))
        return answer
    password, kept = form.get("password", ""), services.registry.admin.password_hash()
    if kept is None or len(password) > _LONGEST or not is_password(password, kept):
        log.warning("sign_in_failed", client=who)
        problem = "That is not the password."
        return _form(request, services, wanted, HTTP_401_UNAUTHORIZED, problem=problem)
    services.attempts.succeeded(who)
    token = begin_session(services, cookie_token(request))
    log.info("signed_in", client=who)
    answer = see(_local(wanted))
    answer.set_cookie(session_cookie(request, token))
    return answer


@post("/sign-out", sync_to_thread=True)
def sign_out(request: PageRequest, services: NamedDependency[Services]) -> Response[Any]:
    """End the session, everywhere."""
    token = cookie_token(request)
    if token is not None:
        end_session(services, token)
    log.info("signed_out", client=client(request))
    answer = see("/sign-in")
    answer.set_cookie(session_cookie(request, new_token()))
    return answer


def _form(  # noqa: PLR0913  what a page can show
    request: PageRequest,
    services: Services,
    wanted: str,
    status_code: int = 200,
    *,
    token: str | None = None,
    problem: str | None = None,
) -> Response[Any]:
    return page(
        request,
        "sign_in.html",
        status_code=status_code,
        token=token,
        problem=problem,
        next=_local(wanted),
        has_password=services.registry.admin.password_hash() is not None,
    )


def _local(path: str) -> str:
    return path if _LOCAL_PATH.fullmatch(path) else "/"
