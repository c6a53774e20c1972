"""Signing keys of an integration: add, remove, the mode, and what is held."""

from collections import Counter
from typing import Any

import structlog
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.status_codes import (
    HTTP_200_OK,
    HTTP_409_CONFLICT,
    HTTP_422_UNPROCESSABLE_ENTITY,
)

from customerio_pipeline.errors import (
    RegistryError,
    RegistryUnavailableError,
    UnknownIntegrationError,
    UnknownKeyError,
)
from customerio_pipeline.management.pages import Form, PageRequest, page, see
from customerio_pipeline.management.reverifying import reverify_held_of
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.records import Integration, SignatureMode
from customerio_pipeline.registry.signing_keys import MAX_LIVE_KEYS

log = structlog.get_logger()


@get("/integrations/{schema:str}/signatures", sync_to_thread=True)
def show_signatures(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the keys by their ids, the mode, and how much is held."""
    return _signatures(request, services, services.registry.of_schema(schema))


@post("/integrations/{schema:str}/keys", sync_to_thread=True)
def add_key(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    form: NamedDependency[Form],
) -> Response[Any]:
    """Add a key; it is not shown again."""
    integration = services.registry.of_schema(schema)
    try:
        key = services.registry.keys.add(integration, form.get("key", ""))
    except (RegistryUnavailableError, UnknownIntegrationError):
        raise
    except RegistryError as error:
        return _signatures(request, services, integration, errors={"key": str(error)})
    log.info("key_added", schema=schema, key_id=key.id)
    return see(f"/integrations/{schema}/signatures", "key-added")


@get("/integrations/{schema:str}/keys/{key_id:str}/remove", sync_to_thread=True)
def ask_remove_key(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    key_id: FromPath[str],
) -> Response[Any]:
    """Ask whether the key shall really be removed."""
    integration = services.registry.of_schema(schema)
    live = {key.id: key for key in services.registry.keys.list(integration) if key.is_live}
    if key_id not in live:
        return _signatures(request, services, integration, problem=_not_live(key_id))
    others = [key for key in live.values() if key.id != key_id]
    return page(
        request, "remove_key.html", integration=integration, key=live[key_id], others=others
    )


@post("/integrations/{schema:str}/keys/{key_id:str}/remove", sync_to_thread=True)
def remove_key(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    key_id: FromPath[str],
) -> Response[Any]:
    """Remove the key."""
    integration = services.registry.of_schema(schema)
    try:
        services.registry.keys.remove(integration, key_id)
    except UnknownKeyError:
        return _signatures(request, services, integration, problem=_not_live(key_id))
    log.info("key_removed", schema=schema, key_id=key_id)
    return see(f"/integrations/{schema}/signatures", "key-removed")


@post("/integrations/{schema:str}/signature-mode", sync_to_thread=True)
def set_mode(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    form: NamedDependency[Form],
) -> Response[Any]:
    """Choose what becomes of a delivery that no key signed."""
    integration = services.registry.of_schema(schema)
    try:
        mode = SignatureMode(form.get("mode", ""))
    except ValueError:
        return _signatures(request, services, integration, errors={"mode": "Choose a mode."})
    services.registry.keys.set_mode(integration, mode)
    log.info("signature_mode_set", schema=schema, mode=mode)
    return see(f"/integrations/{schema}/signatures", "mode-set")


@post("/integrations/{schema:str}/reverify", sync_to_thread=True)
def reverify_held(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Release what the keys of today match."""
    integration = services.registry.of_schema(schema)
    found = reverify_held_of(services, integration)
    log.info("reverified", schema=schema, released=found.released, held=found.held)
    return _signatures(request, services, integration, released=found.released)


def _not_live(key_id: str) -> str:
    return f'"{key_id}" is no signing key of this integration; perhaps it is removed already.'


def _signatures(  # noqa: PLR0913  what is shown once
    request: PageRequest,
    services: Services,
    integration: Integration,
    *,
    errors: dict[str, str] | None = None,
    problem: str | None = None,
    released: int | None = None,
) -> Response[Any]:
    # Of weight, and seldom needed.
    from customerio_pipeline.landing.reverification import count_held
    from customerio_pipeline.landing.signatures import STALE

    keys = services.registry.keys.list(integration)
    policy = services.registry.keys.policy(integration)
    # Without a key ever there was nothing to hold, and nothing need be looked through.
    held = count_held(services.settings.landing, integration.schema) if keys else Counter()
    status = HTTP_200_OK
    if errors:
        status = HTTP_422_UNPROCESSABLE_ENTITY
    elif problem:
        status = HTTP_409_CONFLICT
    return page(
        request,
        "signatures.html",
        status_code=status,
        integration=integration,
        tab="signatures",
        live=[key for key in keys if key.is_live],
        removed=[key for key in reversed(keys) if not key.is_live],
        is_full=len(policy.keys) >= MAX_LIVE_KEYS,
        policy=policy,
        modes=[
            (
                SignatureMode.REQUIRE,
                "Require",
                "What no key signed is kept and not loaded.",
            ),
            (SignatureMode.RECORD, "Record", "Everything is loaded; the verdict is recorded."),
            (SignatureMode.OFF, "Off", "Signatures are not checked."),
        ],
        held=held.total(),
        stale=held[STALE],
        released=released,
        errors=errors or {},
        problem=problem,
    )
