"""Records that could not become rows: their reasons, and another try."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import structlog
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.status_codes import HTTP_200_OK, HTTP_409_CONFLICT

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.management.pages import PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration

_NEWEST = 50
_COMMAND = Path(sys.executable).with_name("customerio-pipeline")
# Then the visitor is told that it goes on.
_PATIENCE_SECONDS = 20.0

log = structlog.get_logger()


@get("/integrations/{schema:str}/rejected", sync_to_thread=True)
def show_rejected(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show what could not become a row, and why."""
    return _rejected(request, services, services.registry.of_schema(schema))


@post("/integrations/{schema:str}/replay-rejected", sync_to_thread=True)
def replay_rejected(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Try them again, in a process of its own: it takes the memory that a load takes."""
    integration = services.registry.of_schema(schema)
    log.info("rejected_replayed", schema=schema)
    process = subprocess.Popen(  # noqa: S603  a command of ours, the schema is an integration's
        [_COMMAND, "replay-rejected", schema, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        found, error = process.communicate(timeout=_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        notice = "They are being tried again, which takes a while: come back later."
        return _rejected(request, services, integration, notice=notice)
    if process.returncode:
        problem = error.decode(errors="replace").strip().removeprefix("Error: ")
        return _rejected(request, services, integration, problem=problem)
    counts = msgspec.json.decode(found, type=dict[str, Any])
    tried = counts["deliveries"]
    notice = (
        f"{tried:,} {'delivery was' if tried == 1 else 'deliveries were'} tried again:"
        f" {counts['still_rejected']:,} records are rejected still."
    )
    return _rejected(request, services, integration, notice=notice)


def _rejected(
    request: PageRequest,
    services: Services,
    integration: Integration,
    *,
    notice: str | None = None,
    problem: str | None = None,
) -> Response[Any]:
    from customerio_pipeline.verifying.rejected import rejected_records

    reasons: Any = ()
    records: Any = ()
    trouble = None
    try:
        with services.reading() as reader:
            reasons, records = rejected_records(reader, integration.schema, _NEWEST)
    except PipelineError as error:
        trouble = str(error)
    return page(
        request,
        "rejected.html",
        status_code=HTTP_409_CONFLICT if problem else HTTP_200_OK,
        integration=integration,
        tab="rejected",
        reasons=reasons,
        records=records,
        most=_NEWEST,
        notice=notice,
        problem=problem,
        trouble=trouble,
    )
