"""What arrives: the newest deliveries, each with its body and its fate, and any event by its id."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration

_NEWEST = 50
_LONGEST_EVENT_ID = 1024
_SHOWN_BYTES = 256 * 1024


@get("/integrations/{schema:str}/events", sync_to_thread=True)
def show_events(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the newest deliveries, with ``?only=held`` of those that are held."""
    integration = services.registry.of_schema(schema)
    return _newest(request, services, integration, "events.html")


@get("/integrations/{schema:str}/events/newest", sync_to_thread=True)
def newest_events(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show them as they are now: the page asks for this part again and again."""
    integration = services.registry.of_schema(schema)
    return _newest(request, services, integration, "newest.html")


@get("/integrations/{schema:str}/trace", sync_to_thread=True)
def trace_event(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show every delivery of an event, what became of each, and the row."""
    from customerio_pipeline.verifying.tracing import trace

    integration = services.registry.of_schema(schema)
    event_id = request.query_params.get("event_id", "").strip()
    found = problem = None
    if not event_id or len(event_id) > _LONGEST_EVENT_ID or "\0" in event_id:
        problem = f"Give an event_id: 1 to {_LONGEST_EVENT_ID:,} characters."
    else:
        try:
            with services.reading() as reader:
                found = trace(reader, services.settings.landing, schema, event_id)
        except PipelineError as error:
            problem = str(error)
    return page(
        request,
        "trace.html",
        integration=integration,
        tab="events",
        event_id=event_id,
        found=found,
        problem=problem,
    )


@get("/integrations/{schema:str}/deliveries/{writer:str}/{offset:int}", sync_to_thread=True)
def show_delivery(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    writer: FromPath[str],
    offset: FromPath[int],
) -> Response[Any]:
    """Show all that is landed of a delivery."""
    from customerio_pipeline.verifying.recent import find_delivery

    integration = services.registry.of_schema(schema)
    with services.reading() as reader:
        found = find_delivery(reader, services.settings.landing, schema, (writer, offset))
    if found is None:
        raise NotFoundException
    return page(
        request,
        "delivery.html",
        integration=integration,
        tab="events",
        writer=writer,
        offset=offset,
        found=found,
        text=_text(found.body),
        is_cut=len(found.body) > _SHOWN_BYTES,
    )


@get("/integrations/{schema:str}/deliveries/{writer:str}/{offset:int}/body", sync_to_thread=True)
def download_body(
    services: NamedDependency[Services],
    schema: FromPath[str],
    writer: FromPath[str],
    offset: FromPath[int],
) -> Response[bytes]:
    """Return the body as it came, for a file: no browser shall show what anybody may have sent."""
    from customerio_pipeline.verifying.recent import find_delivery

    services.registry.of_schema(schema)
    with services.reading() as reader:
        found = find_delivery(reader, services.settings.landing, schema, (writer, offset))
    if found is None:
        raise NotFoundException
    name = f"{schema}-{writer}-{offset}.body"
    return Response(
        found.body,
        media_type="application/octet-stream",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _newest(
    request: PageRequest, services: Services, integration: Integration, template: str
) -> Response[Any]:
    from customerio_pipeline.verifying.recent import newest_deliveries

    deliveries: Any = ()
    problem = None
    only_held = request.query_params.get("only") == "held"
    try:
        with services.reading() as reader:
            deliveries = newest_deliveries(
                reader,
                services.settings.landing,
                integration.schema,
                _NEWEST,
                only_held=only_held,
            )
    except PipelineError as error:
        problem = str(error)
    return page(
        request,
        template,
        integration=integration,
        tab="events",
        deliveries=deliveries,
        only_held=only_held,
        most=_NEWEST,
        problem=problem,
    )


def _text(body: bytes) -> str:
    """Return the body for people: JSON indented, anything else as it is."""
    if len(body) > _SHOWN_BYTES:
        return body[:_SHOWN_BYTES].decode(errors="replace")
    try:
        # Only spaces are added: numbers and keys stay as they were written.
        return msgspec.json.format(body, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")
