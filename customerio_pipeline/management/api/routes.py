"""The API's router, and the OpenAPI document that describes it."""

from typing import Any

from litestar import Request, Response, Router, route
from litestar.enums import HttpMethod
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.routes import HTTPRoute
from litestar.status_codes import HTTP_204_NO_CONTENT

from customerio_pipeline import __version__
from customerio_pipeline.management.api.access import require_token
from customerio_pipeline.management.api.bodies import TAKEN, require_right_body
from customerio_pipeline.management.api.integrations import Integrations
from customerio_pipeline.management.api.problems import API_PREFIX
from customerio_pipeline.management.api.rules import Rules
from customerio_pipeline.management.api.signatures import SignatureChecks
from customerio_pipeline.management.api.urls import Urls


class _Document(JsonRenderPlugin):
    """Says also that bodies have no other fields, which Litestar does not take from msgspec."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        schemas = openapi_schema["components"]["schemas"]
        for body in TAKEN:
            schemas[body.__name__]["additionalProperties"] = False
        return super().render(request, openapi_schema)


# A body here is a name or a key.
_LONGEST_BODY_BYTES = 16 * 1024


@route(
    [
        "/integrations",
        "/integrations/{schema:str}",
        "/integrations/{schema:str}/urls",
        "/integrations/{schema:str}/keys",
        "/integrations/{schema:str}/rules",
        "/integrations/{schema:str}/rules/{rule_id:str}",
    ],
    http_method=HttpMethod.OPTIONS,
    include_in_schema=False,
    sync_to_thread=False,
    status_code=HTTP_204_NO_CONTENT,
)
def _methods(request: Request[Any, Any, Any]) -> Response[None]:
    """Tell all methods of an address; Litestar's own answer tells that of one handler."""
    here = request.scope["path_template"]
    methods = {
        method
        for known in request.app.routes
        if isinstance(known, HTTPRoute) and known.path_format == here
        for method in known.methods
    }
    return Response(None, headers={"allow": ", ".join(sorted(methods))})


def api_router() -> Router:
    """Return the routes; each needs a token."""
    return Router(
        API_PREFIX,
        route_handlers=[_methods, Integrations, Urls, SignatureChecks, Rules],
        guards=[require_token, require_right_body],
        request_max_body_size=_LONGEST_BODY_BYTES,
    )


def openapi_config() -> OpenAPIConfig:
    """Return what Litestar makes the document of, for whoever asks."""
    return OpenAPIConfig(
        title="customerio-pipeline",
        version=__version__,
        description=(
            "Integrations, webhook URLs, signing keys and rules on fields. Every request needs a"
            " token of `customerio-pipeline api-tokens create`; every error is"
            " application/problem+json."
        ),
        # The whole address: below a folder, Litestar would answer whatever else is asked there.
        path=f"{API_PREFIX}/openapi.json",
        render_plugins=[_Document(path=["/", "/openapi.json"])],
        components=Components(
            security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}
        ),
        security=[{"token": []}],
        use_handler_docstrings=True,
    )
