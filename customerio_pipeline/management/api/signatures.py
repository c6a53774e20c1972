"""Signing keys of an integration, the mode, and what is held."""

import structlog
from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody
from litestar.status_codes import HTTP_200_OK

from customerio_pipeline.errors import (
    KeyConflictError,
    RegistryError,
    RegistryUnavailableError,
    UnknownIntegrationError,
    UnknownKeyError,
)
from customerio_pipeline.management.api.bodies import (
    AddKey,
    Reverified,
    SetMode,
    Signatures,
    SigningKey,
)
from customerio_pipeline.management.api.problems import (
    bad_field,
    conflict,
    documented,
    taken_field,
)
from customerio_pipeline.management.pages import PageRequest
from customerio_pipeline.management.reverifying import reverify_held_of
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration

log = structlog.get_logger()


class SignatureChecks(Controller):
    """Signatures of one."""

    path = "/integrations/{schema:str}"
    tags = ["signatures"]  # noqa: RUF012  as Litestar declares it

    @get(
        "/keys",
        operation_id="listKeys",
        summary="List the signing keys, and the mode",
        responses=documented(404),
        sync_to_thread=True,
    )
    def list_keys(self, services: NamedDependency[Services], schema: FromPath[str]) -> Signatures:
        """Return every key that the integration ever had by its id, oldest first."""
        return _signatures(services, services.registry.of_schema(schema))

    @post(
        "/keys",
        operation_id="addKey",
        summary="Add a signing key",
        responses=documented(404, 409, body=True),
        sync_to_thread=True,
    )
    def add_key(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        data: JSONBody[AddKey],
    ) -> SigningKey:
        """Receivers know it within a second; it is never shown again."""
        integration = services.registry.of_schema(schema)
        try:
            key = services.registry.keys.add(integration, data.key)
        except (RegistryUnavailableError, UnknownIntegrationError):
            raise
        except KeyConflictError as error:
            raise taken_field("key", str(error)) from None
        except RegistryError as error:
            raise bad_field("key", str(error)) from None
        log.info("key_added", schema=schema, key_id=key.id, api_token=request.auth)
        return SigningKey.of(key)

    @delete(
        "/keys/{key_id:str}",
        operation_id="removeKey",
        summary="Remove a signing key",
        responses=documented(404, 409),
        sync_to_thread=True,
    )
    def remove_key(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        key_id: FromPath[str],
    ) -> None:
        """It is forgotten; without a key, signatures are not checked."""
        integration = services.registry.of_schema(schema)
        try:
            services.registry.keys.remove(integration, key_id)
        except UnknownKeyError:
            if key_id in {key.id for key in services.registry.keys.list(integration)}:
                raise conflict(f'The signing key "{key_id}" is removed already.') from None
            raise NotFoundException(f'The integration has no signing key "{key_id}".') from None
        log.info("key_removed", schema=schema, key_id=key_id, api_token=request.auth)

    @put(
        "/signature-mode",
        operation_id="setSignatureMode",
        summary="Choose what becomes of a delivery that no key signed",
        responses=documented(404, body=True),
        sync_to_thread=True,
    )
    def set_mode(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        data: JSONBody[SetMode],
    ) -> Signatures:
        """`require` keeps it and does not load it, `record` loads it, `off` checks nothing."""
        integration = services.registry.of_schema(schema)
        services.registry.keys.set_mode(integration, data.mode)
        log.info("signature_mode_set", schema=schema, mode=data.mode, api_token=request.auth)
        return _signatures(services, integration)

    @post(
        "/reverify",
        operation_id="reverify",
        summary="Look again at what is held",
        status_code=HTTP_200_OK,
        responses=documented(404),
        sync_to_thread=True,
    )
    def reverify(
        self, request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
    ) -> Reverified:
        """What a signing key of today matches is loaded next; files that landed so far are seen."""
        integration = services.registry.of_schema(schema)
        found = reverify_held_of(services, integration)
        log.info(
            "reverified",
            schema=schema,
            released=found.released,
            held=found.held,
            api_token=request.auth,
        )
        return Reverified(
            released=found.released,
            held=found.held,
            problems=[str(damage) for damage in found.damaged],
        )


def _signatures(services: Services, integration: Integration) -> Signatures:
    policy = services.registry.keys.policy(integration)
    keys = services.registry.keys.list(integration)
    return Signatures(
        mode=policy.mode, in_force=policy.in_force, keys=[SigningKey.of(key) for key in keys]
    )
