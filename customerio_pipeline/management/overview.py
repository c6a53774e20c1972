"""An integration at a glance, its charts, and the guide that connects Customer.io to it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.management.charts import lag_chart, sparkline, volume_chart
from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration

if TYPE_CHECKING:
    from customerio_pipeline.management.charts import Sparkline
    from customerio_pipeline.verifying.progress import Progress

SPARKLINE_MINUTES = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """How an integration is doing."""

    progress: "Progress | None"
    """None when it cannot be told."""

    last_received_at: datetime | None
    sparkline: "Sparkline | None"
    problems: list[str]
    """Why something cannot be told."""


def read_figures(services: Services, schema: str) -> Figures:
    """Return how an integration is doing, as far as it can be told."""
    from customerio_pipeline.verifying.progress import read_progress

    now = datetime.now(UTC)
    problems = []
    progress = last = line = None
    try:
        activity = services.activity(schema)
        last = activity.last_received(now)
        line = sparkline(activity.per_minute(now, SPARKLINE_MINUTES))
    except PipelineError as error:
        problems.append(str(error))
    try:
        with services.reading() as reader:
            progress = read_progress(reader, services.settings.landing, schema)
    except PipelineError as error:
        problems.append(str(error))
    loaded = progress.last_received_at if progress else None
    return Figures(progress, max(filter(None, (last, loaded)), default=None), line, problems)


@get("/integrations/{schema:str}", sync_to_thread=True)
def overview(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the integration."""
    integration = services.registry.of_schema(schema)
    return page(
        request,
        "overview.html",
        integration=integration,
        tab="overview",
        figures=read_figures(services, schema),
    )


@get("/integrations/{schema:str}/figures", sync_to_thread=True)
def figures(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show its figures as they are now: the page asks for this part again and again."""
    integration = services.registry.of_schema(schema)
    return page(
        request,
        "figures.html",
        integration=integration,
        figures=read_figures(services, schema),
    )


@get("/integrations/{schema:str}/charts", sync_to_thread=True)
def charts(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show volume and lag of the last 24 hours; the table is read for it, so it comes later."""
    from customerio_pipeline.verifying.volume import last_hours

    integration = services.registry.of_schema(schema)
    is_part = bool(request.headers.get("hx-request"))
    problem = None
    volume = lag = None
    try:
        with services.reading() as reader:
            hours = last_hours(reader, schema, datetime.now(UTC))
        volume, lag = volume_chart(hours), lag_chart(hours)
    except PipelineError as error:
        problem = str(error)
    return page(
        request,
        "charts_part.html" if is_part else "charts.html",
        integration=integration,
        tab="overview",
        volume=volume,
        lag=lag,
        problem=problem,
    )


@get("/integrations/{schema:str}/connect", sync_to_thread=True)
def connect(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show how to connect Customer.io, click by click."""
    integration = services.registry.of_schema(schema)
    last, problem = _last_call(services, integration)
    return page(
        request,
        "connect.html",
        integration=integration,
        tab="connect",
        last=last,
        problem=problem,
    )


@get("/integrations/{schema:str}/arrived", sync_to_thread=True)
def arrived(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Tell whether a first event has arrived: the guide asks for this part until it has."""
    integration = services.registry.of_schema(schema)
    last, problem = _last_call(services, integration)
    return page(request, "arrived.html", integration=integration, last=last, problem=problem)


def _last_call(services: Services, integration: Integration) -> tuple[datetime | None, str | None]:
    """Return when one of its URLs was last called, or why that cannot be told.

    Neither a test event of this page nor an import says that Customer.io is connected.
    """
    made_at = {url.id: url.created_at for url in services.registry.urls(integration)}
    try:
        uses = services.activity(integration.schema).use_of_urls(datetime.now(UTC), made_at)
    except PipelineError as error:
        return None, str(error)
    return max((use.last_used for use in uses.values() if use.last_used), default=None), None
