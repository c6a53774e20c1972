"""Integrations: list, create, show, rename, pause, resume, delete."""

import structlog
from litestar import Controller, Response, delete, get, patch, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED, HTTP_204_NO_CONTENT

from customerio_pipeline.errors import (
    IntegrationExistsError,
    RegistryError,
    RegistryUnavailableError,
    SchemaExistsError,
    UnknownIntegrationError,
)
from customerio_pipeline.management.api.bodies import (
    CreateIntegration,
    Integration,
    NewIntegration,
    NewUrl,
    RenameIntegration,
)
from customerio_pipeline.management.api.problems import (
    API_PREFIX,
    bad_field,
    documented,
    taken_field,
)
from customerio_pipeline.management.pages import PageRequest
from customerio_pipeline.management.services import Services
from customerio_pipeline.orchestration.reload import reload_definitions
from customerio_pipeline.registry import records
from customerio_pipeline.registry.display_names import check_name
from customerio_pipeline.registry.schema_names import check_schema, derive_schema
from customerio_pipeline.registry.tokens import webhook_url

log = structlog.get_logger()


class Integrations(Controller):
    """Integrations themselves."""

    path = "/integrations"
    tags = ["integrations"]  # noqa: RUF012  as Litestar declares it

    @get(
        operation_id="listIntegrations",
        summary="List the integrations",
        responses=documented(),
        sync_to_thread=True,
    )
    def list_integrations(self, services: NamedDependency[Services]) -> list[Integration]:
        """Return all that are not deleted, by name."""
        return [_described(services, found) for found in services.registry.integrations()]

    @post(
        operation_id="createIntegration",
        summary="Create an integration",
        responses=documented(409, body=True),
        sync_to_thread=True,
    )
    def create_integration(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        data: JSONBody[CreateIntegration],
    ) -> Response[NewIntegration]:
        """The answer holds the first webhook URL, a secret: in this answer and in no other."""
        _check_names(data)
        try:
            integration, url = services.registry.create(
                data.name, data.schema, reuse_schema=data.reuse_schema, arrays=data.arrays
            )
        except SchemaExistsError as error:
            raise taken_field("schema", str(error)) from None
        except IntegrationExistsError as error:
            raise taken_field("name", str(error)) from None
        schema = integration.schema
        log.info("integration_created", schema=schema, url_id=url.id, api_token=request.auth)
        return Response(
            NewIntegration(
                integration=_described(services, integration),
                url=NewUrl(
                    url_id=url.id, webhook_url=webhook_url(services.settings.public_url, url.token)
                ),
            ),
            status_code=HTTP_201_CREATED,
            headers={"location": f"{API_PREFIX}/integrations/{schema}"},
            background=BackgroundTask(reload_definitions, services.settings),
        )

    @get(
        "/{schema:str}",
        operation_id="showIntegration",
        summary="Show an integration",
        responses=documented(404),
        sync_to_thread=True,
    )
    def show_integration(
        self, services: NamedDependency[Services], schema: FromPath[str]
    ) -> Integration:
        """Return the integration and its URLs, without their secrets."""
        return _described(services, services.registry.of_schema(schema))

    @patch(
        "/{schema:str}",
        operation_id="renameIntegration",
        summary="Give an integration another display name",
        responses=documented(404, 409, body=True),
        sync_to_thread=True,
    )
    def rename_integration(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        data: JSONBody[RenameIntegration],
    ) -> Response[Integration]:
        """The schema stays."""
        integration = services.registry.of_schema(schema)
        try:
            renamed = services.registry.rename(integration, data.name)
        except (RegistryUnavailableError, UnknownIntegrationError):
            raise
        except IntegrationExistsError as error:
            raise taken_field("name", str(error)) from None
        except RegistryError as error:
            raise bad_field("name", str(error)) from None
        log.info("integration_renamed", schema=schema, api_token=request.auth)
        return _changed(services, renamed)

    @post(
        "/{schema:str}/pause",
        operation_id="pauseIntegration",
        summary="Stop loading",
        status_code=HTTP_200_OK,
        responses=documented(404),
        sync_to_thread=True,
    )
    def pause_integration(
        self, request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
    ) -> Response[Integration]:
        """Events are still received and kept."""
        paused = services.registry.pause(services.registry.of_schema(schema))
        log.info("integration_paused", schema=schema, api_token=request.auth)
        return _changed(services, paused)

    @post(
        "/{schema:str}/resume",
        operation_id="resumeIntegration",
        summary="Load again",
        status_code=HTTP_200_OK,
        responses=documented(404),
        sync_to_thread=True,
    )
    def resume_integration(
        self, request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
    ) -> Response[Integration]:
        """Loading begins with what arrived meanwhile."""
        resumed = services.registry.resume(services.registry.of_schema(schema))
        log.info("integration_resumed", schema=schema, api_token=request.auth)
        return _changed(services, resumed)

    @delete(
        "/{schema:str}",
        operation_id="deleteIntegration",
        summary="Delete an integration",
        # As it has a background task, Litestar would describe a body.
        responses=documented(404) | {204: ResponseSpec(None, description="It is deleted.")},
        sync_to_thread=True,
    )
    def delete_integration(
        self, request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
    ) -> Response[None]:
        """Its URLs stop working; tables and landing files stay."""
        services.registry.delete(services.registry.of_schema(schema))
        log.info("integration_deleted", schema=schema, api_token=request.auth)
        task = BackgroundTask(reload_definitions, services.settings)
        return Response(None, status_code=HTTP_204_NO_CONTENT, background=task)


def _check_names(data: CreateIntegration) -> None:
    try:
        name = check_name(data.name)
    except RegistryError as error:
        raise bad_field("name", str(error)) from None
    try:
        if data.schema is None:
            derive_schema(name)
        else:
            check_schema(data.schema)
    except RegistryError as error:
        raise bad_field("schema", str(error)) from None


def _changed(services: Services, integration: records.Integration) -> Response[Integration]:
    task = BackgroundTask(reload_definitions, services.settings)
    return Response(_described(services, integration), background=task)


def _described(services: Services, integration: records.Integration) -> Integration:
    return Integration.of(integration, services.registry.urls(integration))
