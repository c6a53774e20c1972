"""Who asks: the session's cookie, and the token that a form must carry (CSRF).

The cookie holds 256 random bits; the registry holds their hash once they are signed in, so a
session outlives the process and ends everywhere at sign-out. A form's token is derived from the
cookie: another site can make the browser send the cookie, but cannot know the token.
"""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from anyio import to_thread
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
from litestar.handlers import BaseRouteHandler

from customerio_pipeline.management.services import Services
from receiver.senders import client_address, is_proxy

SESSION_COOKIE = "customerio_session"
CSRF_FIELD = "csrf"
SESSION_HOURS = 12

_TOKEN_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Connection = ASGIConnection[Any, Any, Any, Any]


def services_of(connection: Connection) -> Services:
    """Return the services of the application."""
    services: Services = connection.app.state["services"]
    return services


def cookie_token(connection: Connection) -> str | None:
    """Return the cookie's token, if it can be one of ours."""
    token = connection.cookies.get(SESSION_COOKIE, "")
    return token if _TOKEN.fullmatch(token) else None


def csrf_token(token: str) -> str:
    """Return what the forms of this cookie carry."""
    return hmac.digest(token.encode(), b"csrf", "sha256").hex()


def new_token() -> str:
    """Return a token for a cookie."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def session_cookie(connection: Connection, token: str) -> Cookie:
    """Return the cookie: no script reads it, no other site's form sends it."""
    return Cookie(
        SESSION_COOKIE,
        value=token,
        httponly=True,
        samesite="lax",
        secure=is_secure(connection),
        max_age=SESSION_HOURS * 3600,
    )


def is_secure(connection: Connection) -> bool:
    """Tell whether the browser's connection is encrypted, here or at a trusted proxy."""
    if connection.scope["scheme"] == "https":
        return True
    proxies = services_of(connection).settings.trusted_proxies
    forwarded = connection.headers.get("x-forwarded-proto", "")
    return forwarded.lower() == "https" and is_proxy(_peer(connection), proxies)


def client(connection: Connection) -> str:
    """Return the client's address, as trusted proxies tell it."""
    forwarded = ",".join(connection.headers.getall("x-forwarded-for", []))
    proxies = services_of(connection).settings.trusted_proxies
    return client_address(_peer(connection), forwarded.encode("latin-1", "replace"), proxies)


def begin_session(services: Services, old_token: str | None) -> str:
    """Open a session and return its token: a new one, whatever the visitor brought along."""
    token = new_token()
    ends_at = datetime.now(UTC) + timedelta(hours=SESSION_HOURS)
    if old_token is not None:
        end_session(services, old_token)
    services.registry.admin.begin_session(_hash(token), ends_at)
    return token


def end_session(services: Services, token: str) -> None:
    """End the session of this token, if it is one."""
    services.registry.admin.end_session(_hash(token))


def is_signed_in(connection: Connection) -> bool:
    """Tell whether the cookie is that of a session; asks the registry."""
    token = cookie_token(connection)
    return token is not None and services_of(connection).registry.admin.is_session(_hash(token))


async def require_session(connection: Connection, _: BaseRouteHandler) -> None:
    """Let only those in who are signed in.

    Raises:
        NotAuthorizedException: this visitor is not.
    """
    if not await to_thread.run_sync(is_signed_in, connection):
        raise NotAuthorizedException("Sign in first.")


async def require_csrf_token(connection: Connection, _: BaseRouteHandler) -> None:
    """Take changes only from our own forms.

    Raises:
        PermissionDeniedException: this is none.
    """
    if not isinstance(connection, Request) or connection.method in _SAFE_METHODS:
        return
    # Browsers of today say so themselves; the token holds in others, too.
    if connection.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise PermissionDeniedException("This form was sent by another site: nothing was done.")
    token = cookie_token(connection)
    given = str((await connection.form()).get(CSRF_FIELD, ""))
    if token is None or not hmac.compare_digest(given.encode(), csrf_token(token).encode()):
        raise PermissionDeniedException(
            "This form is out of date: go back, load the page again and repeat."
        )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _peer(connection: Connection) -> str:
    return connection.client.host if connection.client else ""
