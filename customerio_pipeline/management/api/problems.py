"""Errors of the API: every one is ``application/problem+json`` (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from litestar import Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.status_codes import HTTP_409_CONFLICT, HTTP_422_UNPROCESSABLE_ENTITY
from msgspec import UNSET, Struct, UnsetType

API_PREFIX = "/api"

_MEDIA_TYPE = "application/problem+json"
_DESCRIPTIONS = {
    400: "The body is no JSON.",
    401: "No API token, or one that is not taken.",
    404: "There is no such thing.",
    409: "It contradicts what is there already.",
    413: "The body is too long.",
    422: "A field is missing or wrong; `errors` names it.",
    429: "Too many wrong tokens from this address; a right one is taken all the same.",
    503: "The registry or the landing folder cannot be used now.",
}
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address takes no such request.",
    413: "The body is longer than anything here needs: nothing was done.",
}
# Litestar words these its own way, wherever they come from.
_NOT_OURS = (405, 413)
_ALWAYS = (401, 429, 503)
_WITH_BODY = (400, 413, 422)


class FieldProblem(Struct, frozen=True, kw_only=True):
    """What is wrong with a field of the body."""

    field: str
    """Its name; empty where it is the body as a whole."""

    detail: str


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Why a request was not done (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | UnsetType = UNSET
    """One for each field at fault."""


def problem(
    status: int,
    detail: str,
    *,
    errors: list[FieldProblem] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[Problem]:
    """Return the answer; `detail` is a sentence without secrets."""
    content = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, errors=errors or UNSET
    )
    # What no route takes is answered before the middleware that sets it elsewhere.
    headers = {"cache-control": "no-store", **(headers or {})}
    return Response(content, status_code=status, media_type=_MEDIA_TYPE, headers=headers)


def http_problem(error: HTTPException) -> Response[Any]:
    """Return the answer to what Litestar, a guard or a handler refused."""
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase or error.status_code in _NOT_OURS:
        detail = _SENTENCES.get(error.status_code, detail)
    fields = error.extra if isinstance(error.extra, list) else []
    errors = [field for field in fields if isinstance(field, FieldProblem)]
    return problem(error.status_code, detail, errors=errors, headers=error.headers)


def bad_field(field: str, detail: str) -> HTTPException:
    """Return the error of a field that is missing or wrong."""
    return _of_field(HTTP_422_UNPROCESSABLE_ENTITY, field, detail)


def taken_field(field: str, detail: str) -> HTTPException:
    """Return the error of a field whose value something else has."""
    return _of_field(HTTP_409_CONFLICT, field, detail)


def conflict(detail: str) -> HTTPException:
    """Return the error of what contradicts the state of things."""
    return HTTPException(detail, status_code=HTTP_409_CONFLICT)


def documented(*statuses: int, body: bool = False) -> dict[int, ResponseSpec]:
    """Return how the OpenAPI document describes an operation's problems.

    Args:
        statuses: besides those that every operation has.
        body: the operation takes one.
    """
    return {
        status: ResponseSpec(
            Problem,
            generate_examples=False,
            description=_DESCRIPTIONS[status],
            media_type=_MEDIA_TYPE,
        )
        for status in sorted({*_ALWAYS, *statuses, *(_WITH_BODY if body else ())})
    }


def _of_field(status: int, field: str, detail: str) -> HTTPException:
    return HTTPException(
        detail, status_code=status, extra=[FieldProblem(field=field, detail=detail)]
    )
