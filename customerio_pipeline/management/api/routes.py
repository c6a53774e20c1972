"""The API's router, and the OpenAPI document that describes it."""

from litestar import Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from customerio_pipeline import __version__
from customerio_pipeline.management.api import integrations, signatures, urls
from customerio_pipeline.management.api.access import require_token
from customerio_pipeline.management.api.bodies import require_right_body
from customerio_pipeline.management.api.problems import API_PREFIX

# A body here is a name or a key.
_LONGEST_BODY_BYTES = 16 * 1024


def api_router() -> Router:
    """Return the routes; each needs a token."""
    return Router(
        API_PREFIX,
        route_handlers=[
            integrations.list_integrations,
            integrations.create_integration,
            integrations.show_integration,
            integrations.rename_integration,
            integrations.delete_integration,
            integrations.pause_integration,
            integrations.resume_integration,
            urls.list_urls,
            urls.generate_url,
            urls.revoke_url,
            signatures.list_keys,
            signatures.add_key,
            signatures.remove_key,
            signatures.set_mode,
            signatures.reverify,
        ],
        guards=[require_token, require_right_body],
        request_max_body_size=_LONGEST_BODY_BYTES,
    )


def openapi_config() -> OpenAPIConfig:
    """Return what Litestar makes the document of, for whoever asks."""
    return OpenAPIConfig(
        title="customerio-pipeline",
        version=__version__,
        description=(
            "Integrations, webhook URLs and signing keys. Every request needs a token of"
            " `customerio-pipeline api-tokens create`; every error is application/problem+json."
        ),
        # The whole address: below a folder, Litestar would answer whatever else is asked there.
        path=f"{API_PREFIX}/openapi.json",
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        components=Components(
            security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}
        ),
        security=[{"token": []}],
        use_handler_docstrings=True,
    )
