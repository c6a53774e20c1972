"""The web application of the admin process: page, API, metrics and health on one listener."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from litestar import Litestar, Router
from litestar.datastructures import CacheControlHeader, State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig
from litestar.types import ControllerRouterHandler

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.management import (
    creating,
    dashboard,
    events,
    fields,
    integration_pages,
    overview,
    rejected,
    sign_in,
    signatures,
    test_event,
    urls,
)
from customerio_pipeline.management.api.routes import api_router, openapi_config
from customerio_pipeline.management.headers import ProtectiveHeaders
from customerio_pipeline.management.monitoring import monitoring_routes
from customerio_pipeline.management.pages import FOLDER, read_form, template_engine
from customerio_pipeline.management.problems import (
    show_http_error,
    show_pipeline_error,
    show_unexpected,
)
from customerio_pipeline.management.services import Services
from customerio_pipeline.management.sessions import require_csrf_token, require_session
from customerio_pipeline.settings import Settings

# A form here is a name or a key.
_LONGEST_FORM_BYTES = 16 * 1024
# Each costs memory that the receiver can use better, and this is for a few people.
_THREADS = 4

_WITHOUT_SESSION = [sign_in.show_sign_in, sign_in.sign_in]
_WITH_SESSION = [
    sign_in.sign_out,
    dashboard.dashboard,
    dashboard.cards,
    creating.show_new,
    creating.preview,
    creating.create,
    overview.overview,
    overview.figures,
    overview.charts,
    overview.connect,
    overview.arrived,
    events.show_events,
    events.newest_events,
    events.trace_event,
    events.show_delivery,
    events.download_body,
    rejected.show_rejected,
    rejected.replay_rejected,
    urls.show_urls,
    urls.generate,
    urls.ask_revoke,
    urls.revoke,
    signatures.show_signatures,
    signatures.add_key,
    signatures.ask_remove_key,
    signatures.remove_key,
    signatures.set_mode,
    signatures.reverify_held,
    fields.show_fields,
    fields.add_rule,
    fields.move_rule,
    fields.ask_remove_rule,
    fields.remove_rule,
    test_event.send_test_event,
    integration_pages.show_settings,
    integration_pages.rename,
    integration_pages.pause,
    integration_pages.resume,
    integration_pages.ask_delete,
    integration_pages.delete,
]


def create_app(settings: Settings, metrics: int) -> Litestar:
    """Make the application; `metrics` is the descriptor of the workers' figures."""
    services = Services(settings)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        services.close()

    controllers: list[ControllerRouterHandler] = [
        Router("/", route_handlers=monitoring_routes(settings, metrics), include_in_schema=False),
        api_router(),
        create_static_files_router(
            "/static",
            [FOLDER / "static"],
            # Their addresses carry the version.
            cache_control=CacheControlHeader(max_age=3600),
            include_in_schema=False,
        ),
        _pages(),
    ]
    return Litestar(
        controllers,
        dependencies={"services": Provide(lambda: services, sync_to_thread=False)},
        state=State({"services": services}),
        lifespan=[lifespan],
        middleware=[ProtectiveHeaders()],
        template_config=TemplateConfig(instance=template_engine()),
        exception_handlers={
            HTTPException: show_http_error,
            PipelineError: show_pipeline_error,
            Exception: show_unexpected,
        },
        openapi_config=openapi_config(),
        logging_config=None,
    )


def _pages() -> Router:
    return Router(
        "/",
        route_handlers=[
            Router("/", route_handlers=_WITHOUT_SESSION),
            Router("/", route_handlers=_WITH_SESSION, guards=[require_session]),
        ],
        guards=[require_csrf_token],
        dependencies={"form": Provide(read_form)},
        request_max_body_size=_LONGEST_FORM_BYTES,
        include_in_schema=False,
    )
