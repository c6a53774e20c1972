"""Rules on fields of an integration: add, move, remove."""

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
    UnknownRuleError,
)
from customerio_pipeline.management.pages import Form, PageRequest, page, see
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.field_patterns import MAX_PATTERN_LENGTH
from customerio_pipeline.registry.field_rules import MAX_RULES
from customerio_pipeline.registry.records import FieldAction, Integration

_ACTIONS = [
    (FieldAction.DROP, "Drop", "The values are not loaded."),
    (
        FieldAction.HASH,
        "Hash",
        "A keyed hash takes the place of each value: equal values can still be joined.",
    ),
    (FieldAction.KEEP, "Keep", "The values are loaded as they are, whatever later rules say."),
]

log = structlog.get_logger()


@get("/integrations/{schema:str}/fields", sync_to_thread=True)
def show_fields(
    request: PageRequest, services: NamedDependency[Services], schema: FromPath[str]
) -> Response[Any]:
    """Show the rules in their order."""
    return _fields(request, services, services.registry.of_schema(schema))


@post("/integrations/{schema:str}/rules", sync_to_thread=True)
def add_rule(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    form: NamedDependency[Form],
) -> Response[Any]:
    """Add a rule after all others."""
    integration = services.registry.of_schema(schema)
    pattern = form.get("pattern", "")
    try:
        action = FieldAction(form.get("action", ""))
    except ValueError:
        errors = {"action": "Choose what to do."}
        return _fields(request, services, integration, errors=errors, pattern=pattern)
    try:
        rule = services.registry.field_rules.add(integration, pattern, action)
    except (RegistryUnavailableError, UnknownIntegrationError):
        raise
    except RegistryError as error:
        errors = {"pattern": str(error)}
        return _fields(
            request, services, integration, errors=errors, pattern=pattern, action=action
        )
    log.info("rule_added", schema=schema, rule_id=rule.id, action=action)
    return see(f"/integrations/{schema}/fields", "rule-added")


@post("/integrations/{schema:str}/rules/{rule_id:str}/move", sync_to_thread=True)
def move_rule(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    rule_id: FromPath[str],
    form: NamedDependency[Form],
) -> Response[Any]:
    """Give a rule another place."""
    integration = services.registry.of_schema(schema)
    position = form.get("position", "")
    # Python refuses to read thousands of digits; there are no such places either.
    is_number = position.isdecimal() and len(position) <= len(str(MAX_RULES))
    try:
        services.registry.field_rules.move(integration, rule_id, int(position) if is_number else 0)
    except (RegistryUnavailableError, UnknownIntegrationError):
        raise
    except UnknownRuleError:
        return _fields(request, services, integration, problem=_no_rule(rule_id))
    except RegistryError as error:
        return _fields(request, services, integration, problem=str(error))
    log.info("rule_moved", schema=schema, rule_id=rule_id)
    return see(f"/integrations/{schema}/fields", "rule-moved")


@get("/integrations/{schema:str}/rules/{rule_id:str}/remove", sync_to_thread=True)
def ask_remove_rule(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    rule_id: FromPath[str],
) -> Response[Any]:
    """Ask whether the rule shall really be removed."""
    integration = services.registry.of_schema(schema)
    rules = {rule.id: rule for rule in services.registry.field_rules.list(integration)}
    if rule_id not in rules:
        return _fields(request, services, integration, problem=_no_rule(rule_id))
    return page(request, "remove_rule.html", integration=integration, rule=rules[rule_id])


@post("/integrations/{schema:str}/rules/{rule_id:str}/remove", sync_to_thread=True)
def remove_rule(
    request: PageRequest,
    services: NamedDependency[Services],
    schema: FromPath[str],
    rule_id: FromPath[str],
) -> Response[Any]:
    """Remove the rule."""
    integration = services.registry.of_schema(schema)
    try:
        services.registry.field_rules.remove(integration, rule_id)
    except UnknownRuleError:
        return _fields(request, services, integration, problem=_no_rule(rule_id))
    log.info("rule_removed", schema=schema, rule_id=rule_id)
    return see(f"/integrations/{schema}/fields", "rule-removed")


def _no_rule(rule_id: str) -> str:
    return f'"{rule_id}" is no rule of this integration; perhaps it is removed already.'


def _fields(  # noqa: PLR0913  what is shown once
    request: PageRequest,
    services: Services,
    integration: Integration,
    *,
    errors: dict[str, str] | None = None,
    problem: str | None = None,
    pattern: str = "",
    action: FieldAction | None = None,
) -> Response[Any]:
    rules = services.registry.field_rules.list(integration)
    status = HTTP_200_OK
    if errors:
        status = HTTP_422_UNPROCESSABLE_ENTITY
    elif problem:
        status = HTTP_409_CONFLICT
    return page(
        request,
        "fields.html",
        status_code=status,
        integration=integration,
        tab="fields",
        rules=rules,
        is_full=len(rules) >= MAX_RULES,
        actions=_ACTIONS,
        longest=MAX_PATTERN_LENGTH,
        pattern=pattern,
        action=action,
        errors=errors or {},
        problem=problem,
    )
