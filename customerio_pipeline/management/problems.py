"""Errors as pages: what went wrong, in words, and how to go on."""

from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from litestar import Response
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.response import Redirect
from litestar.status_codes import (
    HTTP_303_SEE_OTHER,
    HTTP_404_NOT_FOUND,
    HTTP_409_CONFLICT,
    HTTP_500_INTERNAL_SERVER_ERROR,
    HTTP_503_SERVICE_UNAVAILABLE,
)

from customerio_pipeline.errors import PipelineError, RegistryError, UnknownIntegrationError
from customerio_pipeline.management.api.problems import API_PREFIX, http_problem, problem
from customerio_pipeline.management.pages import PageRequest, page
from receiver.logs import log_unexpected

_MESSAGES = {
    404: "There is nothing at this address.",
    405: "This address takes no such request.",
    413: "That is more than any form here needs: nothing was done.",
}


def show_http_error(request: PageRequest, error: HTTPException) -> Response[Any]:
    """Answer what Litestar or a guard refused; who is not signed in is sent to the sign-in."""
    if _is_of_api(request):
        return http_problem(error)
    if isinstance(error, NotAuthorizedException):
        return _to_sign_in(request)
    message = _MESSAGES.get(error.status_code, error.detail)
    return _problem(request, error.status_code, message)


def show_pipeline_error(request: PageRequest, error: PipelineError) -> Response[Any]:
    """Answer what cannot be done as asked, or not now."""
    if isinstance(error, UnknownIntegrationError):
        status = HTTP_404_NOT_FOUND
    elif isinstance(error, RegistryError) and error.usage:
        status = HTTP_409_CONFLICT
    else:
        status = HTTP_503_SERVICE_UNAVAILABLE
    return _problem(request, status, str(error))


def show_unexpected(request: PageRequest, error: Exception) -> Response[Any]:
    """Answer what nobody foresaw, and log its kind and place: its message may hold a secret."""
    log_unexpected("page_failed", error)
    message = "Something went wrong that should not. The log of the admin process says where."
    return _problem(request, HTTP_500_INTERNAL_SERVER_ERROR, message)


def _problem(request: PageRequest, status: int, message: str) -> Response[Any]:
    if _is_of_api(request):
        return problem(status, message)
    title = HTTPStatus(status).phrase.capitalize()
    return page(request, "problem.html", status_code=status, title=title, message=message)


def _is_of_api(request: PageRequest) -> bool:
    return f"{request.scope['path']}/".startswith(f"{API_PREFIX}/")


def _to_sign_in(request: PageRequest) -> Response[Any]:
    target = "/sign-in"
    if request.headers.get("hx-request"):
        # A part of a page asked: the browser shall leave the whole page.
        return Response(b"", status_code=200, headers={"hx-redirect": target})
    if request.method == "GET" and request.url.path != "/":
        target += f"?{urlencode({'next': request.url.path})}"
    return Redirect(target, status_code=HTTP_303_SEE_OTHER)
