"""Who may use the API: whoever sends a live token. Cookies and forms count for nothing here."""

import math
import re

import structlog
from anyio import to_thread
from litestar.exceptions import NotAuthorizedException, TooManyRequestsException
from litestar.handlers import BaseRouteHandler

from customerio_pipeline.management.sessions import Connection, client, services_of

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_CHALLENGE = 'Bearer realm="customerio-pipeline"'

log = structlog.get_logger()


async def require_token(connection: Connection, _: BaseRouteHandler) -> None:
    """Let only those in who send a live token; its id becomes `connection.auth`.

    Wrong ones are counted, as failed sign-ins are, but a right one is always taken: 256 random
    bits cannot be found by trying, so nobody needs to be locked out by others behind his address.

    Raises:
        NotAuthorizedException: there is no token, or it is none of ours.
        TooManyRequestsException: there were too many wrong ones from there.
    """
    found = _BEARER.fullmatch(connection.headers.get("authorization", ""))
    if found is None:
        raise NotAuthorizedException(
            'This needs an API token: send it as "Authorization: Bearer TOKEN".',
            headers={"www-authenticate": _CHALLENGE},
        )
    token_id = await to_thread.run_sync(_token_id, connection, found[1])
    if token_id is None:
        _refuse(connection)
    connection.scope["auth"] = token_id


def _token_id(connection: Connection, token: str) -> str | None:
    if not _TOKEN.fullmatch(token):
        return None
    return services_of(connection).registry.api_tokens.id_of(token)


def _refuse(connection: Connection) -> None:
    who = client(connection)
    challenge = {"www-authenticate": f'{_CHALLENGE}, error="invalid_token"'}
    wait = services_of(connection).token_attempts.begin(who)
    if wait:
        log.warning("api_token_limited", client=who)
        raise TooManyRequestsException(
            "There were too many wrong tokens from this address.",
            headers=challenge | {"retry-after": str(math.ceil(wait))},
        )
    log.warning("api_token_refused", client=who)
    raise NotAuthorizedException("The API token is wrong or revoked.", headers=challenge)
