"""Adding an integration: name, preview of its schema, and its URL, shown once."""

from typing import Any

import structlog
from litestar import Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.status_codes import HTTP_422_UNPROCESSABLE_ENTITY

from customerio_pipeline.errors import (
    IntegrationExistsError,
    RegistryError,
    RegistryUnavailableError,
    SchemaExistsError,
)
from customerio_pipeline.management.pages import Form, PageRequest, page
from customerio_pipeline.management.services import Services
from customerio_pipeline.management.shown_once import new_url_page
from customerio_pipeline.orchestration.reload import reload_definitions
from customerio_pipeline.registry.display_names import check_name
from customerio_pipeline.registry.records import Arrays
from customerio_pipeline.registry.schema_names import check_schema, derive_schema

log = structlog.get_logger()

_EMPTY: Form = {"name": "", "schema": "", "arrays": Arrays.JSON, "reuse_schema": ""}


@get("/new", sync_to_thread=True)
def show_new(request: PageRequest) -> Response[Any]:
    """Ask for a name."""
    return page(request, "new.html", fields=_EMPTY, errors={}, preview=None)


@get("/new/preview", sync_to_thread=True)
def preview(request: PageRequest, services: NamedDependency[Services]) -> Response[Any]:
    """Show, while a name is typed, which schema it will have."""
    query = {name: request.query_params.get(name, "") for name in _EMPTY}
    schema, errors = _check(services, query)
    return page(request, "preview.html", preview=schema, errors=errors, fields=query)


@post("/new", sync_to_thread=True)
def create(
    request: PageRequest, services: NamedDependency[Services], form: NamedDependency[Form]
) -> Response[Any]:
    """Create the integration and show its URL, this once."""
    fields = {name: form.get(name, default) for name, default in _EMPTY.items()}
    schema, errors = _check(services, fields)
    if not errors:
        try:
            integration, url = services.registry.create(
                fields["name"],
                fields["schema"] or None,
                reuse_schema=bool(fields["reuse_schema"]),
                arrays=Arrays(fields["arrays"]),
            )
        except RegistryUnavailableError:
            raise
        except RegistryError as error:
            # Somebody else was faster.
            errors = {_field_of(error): str(error)}
        else:
            log.info("integration_created", schema=integration.schema, url_id=url.id)
            task = BackgroundTask(reload_definitions, services.settings)
            return new_url_page(request, services, integration, url, is_first=True, task=task)
    return page(
        request,
        "new.html",
        status_code=HTTP_422_UNPROCESSABLE_ENTITY,
        fields=fields,
        errors=errors,
        preview=schema,
    )


def _check(services: Services, fields: Form) -> tuple[str | None, dict[str, str]]:
    """Return the schema that the fields lead to, and what is wrong with which field."""
    errors = {}
    schema = None
    try:
        name = check_name(fields["name"])
    except RegistryError as error:
        errors["name"] = str(error)
    else:
        try:
            typed = fields["schema"].strip()
            schema = check_schema(typed) if typed else derive_schema(name)
        except RegistryError as error:
            errors["schema" if fields["schema"].strip() else "name"] = str(error)
    if fields["arrays"] and fields["arrays"] not in set(Arrays):
        errors["arrays"] = "Choose one of the two."
    if schema is not None and not errors:
        try:
            services.registry.check_is_free(
                fields["name"], schema, reuse_schema=bool(fields["reuse_schema"])
            )
        except IntegrationExistsError as error:
            errors[_field_of(error)] = str(error)
    return schema, errors


def _field_of(error: RegistryError) -> str:
    return "schema" if isinstance(error, SchemaExistsError) else "name"
