"""Rules on fields: which columns loads drop, hash or keep."""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from customerio_pipeline.errors import RegistryError, RuleConflictError, UnknownRuleError
from customerio_pipeline.registry.database import Database
from customerio_pipeline.registry.field_patterns import check_pattern, pattern_key
from customerio_pipeline.registry.records import (
    FieldAction,
    FieldPolicy,
    FieldRule,
    Integration,
)
from customerio_pipeline.registry.steps import begin_change, find_by_id
from customerio_pipeline.registry.tables import field_policies, field_rules
from customerio_pipeline.registry.tokens import new_hash_key, new_rule_id

MAX_RULES = 100


class FieldRules:
    """Every method raises `RegistryUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        integration: Integration,
        pattern: str,
        action: FieldAction,
        position: int | None = None,
    ) -> FieldRule:
        """Add a rule for what is loaded from now on.

        Args:
            integration: whose columns.
            pattern: glob over their names.
            action: what becomes of their values.
            position: its place among the rules, from 1; after all others when None.

        Raises:
            RuleConflictError: there is one of this pattern, or there are too many.
            RegistryError: the pattern cannot be one, or there is no such position.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        pattern = check_pattern(pattern, action)
        with self._database.changing() as connection:
            begin_change(connection)
            find_by_id(connection, integration.id)
            rules = list(_rules(connection, integration))
            for rule in rules:
                if pattern_key(rule.pattern) == pattern_key(pattern):
                    raise RuleConflictError(
                        f'"{integration.name}" has a rule "{rule.pattern}" already:'
                        f" {rule.id}, {rule.action}."
                    )
            if len(rules) >= MAX_RULES:
                raise RuleConflictError(
                    f'"{integration.name}" has {len(rules)} rules: remove one first with'
                    f" `customerio-pipeline rules remove {integration.schema} RULE`."
                )
            added = FieldRule(new_rule_id(), pattern, action, datetime.now(UTC))
            at = len(rules) if position is None else _index(position, len(rules) + 1)
            rules.insert(at, added)
            connection.execute(
                field_rules.insert().values(
                    id=added.id,
                    schema=integration.schema,
                    position=at,
                    pattern=pattern,
                    action=action,
                    added_at=added.added_at,
                )
            )
            _save_order(connection, integration, rules)
        return added

    def list(self, integration: Integration) -> list[FieldRule]:
        """Return the rules in their order."""
        with self._database.reading() as connection:
            return list(_rules(connection, integration))

    def remove(self, integration: Integration, rule: str) -> FieldRule:
        """Remove a rule, by its id or pattern; return what it was.

        Raises:
            UnknownRuleError: the integration has no such rule.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            find_by_id(connection, integration.id)
            rules = _rules(connection, integration)
            removed = _find(integration, rules, rule)
            connection.execute(field_rules.delete().where(field_rules.c.id == removed.id))
            _save_order(connection, integration, [one for one in rules if one != removed])
        return removed

    def move(self, integration: Integration, rule: str, position: int) -> FieldRule:
        """Give a rule, by its id or pattern, another place among the rules, from 1.

        Raises:
            UnknownRuleError: the integration has no such rule.
            RegistryError: there is no such position.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            find_by_id(connection, integration.id)
            rules = _rules(connection, integration)
            moved = _find(integration, rules, rule)
            others = [one for one in rules if one != moved]
            others.insert(_index(position, len(rules)), moved)
            _save_order(connection, integration, others)
        return moved

    def policy(self, integration: Integration) -> FieldPolicy:
        """Return the rules in their order, with the key of the hashes."""
        statement = sa.select(field_policies.c.secret, field_policies.c.changed_at).where(
            field_policies.c.schema == integration.schema
        )
        with self._database.reading() as connection:
            rules = _rules(connection, integration)
            # After the rules: a key that they need is there.
            row = connection.execute(statement).first()
        return FieldPolicy(rules, *row) if row is not None else FieldPolicy(rules)


def _rules(connection: sa.Connection, integration: Integration) -> tuple[FieldRule, ...]:
    columns = (field_rules.c.id, field_rules.c.pattern, field_rules.c.action)
    statement = (
        sa.select(*columns, field_rules.c.added_at)
        .where(field_rules.c.schema == integration.schema)
        .order_by(field_rules.c.position)
    )
    return tuple(
        FieldRule(key, pattern, FieldAction(action), added_at)
        for key, pattern, action, added_at in connection.execute(statement)
    )


def _save_order(
    connection: sa.Connection, integration: Integration, rules: Sequence[FieldRule]
) -> None:
    """Number the rules, note that they changed, and make the key where they need the first."""
    if rules:
        connection.execute(
            field_rules.update()
            .where(field_rules.c.id == sa.bindparam("rule"))
            .values(position=sa.bindparam("place")),
            [{"rule": rule.id, "place": place} for place, rule in enumerate(rules)],
        )
    is_here = field_policies.c.schema == integration.schema
    now = datetime.now(UTC)
    changed = connection.execute(field_policies.update().where(is_here).values(changed_at=now))
    if not changed.rowcount:
        connection.execute(
            field_policies.insert().values(schema=integration.schema, changed_at=now)
        )
    if any(rule.action is not FieldAction.KEEP for rule in rules):
        connection.execute(
            field_policies.update()
            .where(is_here, field_policies.c.secret.is_(None))
            .values(secret=new_hash_key())
        )


def _find(integration: Integration, rules: Sequence[FieldRule], wanted: str) -> FieldRule:
    key = pattern_key(wanted.strip())
    for rule in rules:
        if key in (rule.id, pattern_key(rule.pattern)):
            return rule
    raise UnknownRuleError(
        f'"{integration.name}" has no rule "{wanted}":'
        f" `customerio-pipeline rules list {integration.schema}` shows its rules."
    )


def _index(position: int, count: int) -> int:
    if not 1 <= position <= count:
        places = f"from 1 to {count}" if count > 1 else "1"
        raise RegistryError(f"There is no position {position}: choose {places}.")
    return position - 1
