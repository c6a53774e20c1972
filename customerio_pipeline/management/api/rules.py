"""Rules on fields of an integration: list, add, move, remove."""

import structlog
from litestar import Controller, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody

from customerio_pipeline.errors import (
    RegistryError,
    RegistryUnavailableError,
    RuleConflictError,
    UnknownIntegrationError,
    UnknownRuleError,
)
from customerio_pipeline.management.api.bodies import AddRule, MoveRule, Rule
from customerio_pipeline.management.api.problems import bad_field, documented, taken_field
from customerio_pipeline.management.pages import PageRequest
from customerio_pipeline.management.services import Services
from customerio_pipeline.registry.field_patterns import check_pattern

log = structlog.get_logger()


class Rules(Controller):
    """The rules of one; they hold for what is loaded from then on."""

    path = "/integrations/{schema:str}/rules"
    tags = ["rules"]  # noqa: RUF012  as Litestar declares it

    @get(
        operation_id="listRules",
        summary="List the rules on fields",
        responses=documented(404),
        sync_to_thread=True,
    )
    def list_rules(self, services: NamedDependency[Services], schema: FromPath[str]) -> list[Rule]:
        """Return them in order: the first whose pattern matches a column counts."""
        integration = services.registry.of_schema(schema)
        return Rule.all_of(services.registry.field_rules.list(integration))

    @post(
        operation_id="addRule",
        summary="Add a rule on fields",
        responses=documented(404, 409, body=True),
        sync_to_thread=True,
    )
    def add_rule(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        data: JSONBody[AddRule],
    ) -> list[Rule]:
        """`drop` leaves values out, `hash` puts a keyed hash in their place; returns all rules."""
        integration = services.registry.of_schema(schema)
        rules = services.registry.field_rules
        try:
            check_pattern(data.pattern, data.action)
        except RegistryError as error:
            raise bad_field("pattern", str(error)) from None
        try:
            rule = rules.add(integration, data.pattern, data.action, data.position)
        except (RegistryUnavailableError, UnknownIntegrationError):
            raise
        except RuleConflictError as error:
            raise taken_field("pattern", str(error)) from None
        except RegistryError as error:
            raise bad_field("position", str(error)) from None
        log.info(
            "rule_added",
            schema=schema,
            rule_id=rule.id,
            action=rule.action,
            api_token=request.auth,
        )
        return Rule.all_of(rules.list(integration))

    @patch(
        "/{rule_id:str}",
        operation_id="moveRule",
        summary="Give a rule another place",
        responses=documented(404, body=True),
        sync_to_thread=True,
    )
    def move_rule(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        rule_id: FromPath[str],
        data: JSONBody[MoveRule],
    ) -> list[Rule]:
        """Return all rules in their new order."""
        integration = services.registry.of_schema(schema)
        rules = services.registry.field_rules
        try:
            rule = rules.move(integration, rule_id, data.position)
        except (RegistryUnavailableError, UnknownIntegrationError):
            raise
        except UnknownRuleError:
            raise NotFoundException(f'The integration has no rule "{rule_id}".') from None
        except RegistryError as error:
            raise bad_field("position", str(error)) from None
        log.info("rule_moved", schema=schema, rule_id=rule.id, api_token=request.auth)
        return Rule.all_of(rules.list(integration))

    @delete(
        "/{rule_id:str}",
        operation_id="removeRule",
        summary="Remove a rule",
        responses=documented(404),
        sync_to_thread=True,
    )
    def remove_rule(
        self,
        request: PageRequest,
        services: NamedDependency[Services],
        schema: FromPath[str],
        rule_id: FromPath[str],
    ) -> None:
        """What it dropped or hashed is loaded as it is, unless another rule says otherwise."""
        integration = services.registry.of_schema(schema)
        try:
            rule = services.registry.field_rules.remove(integration, rule_id)
        except UnknownRuleError:
            raise NotFoundException(f'The integration has no rule "{rule_id}".') from None
        log.info("rule_removed", schema=schema, rule_id=rule.id, api_token=request.auth)
