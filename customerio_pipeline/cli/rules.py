"""``customerio-pipeline rules``: which fields loads drop, hash or keep."""

from collections.abc import Sequence
from contextlib import closing

import click

from customerio_pipeline.cli.integrations import json_option
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.registry.records import FieldAction, FieldRule
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings

_MEANING = {
    FieldAction.DROP: "dropped",
    FieldAction.HASH: "hashed",
    FieldAction.KEEP: "kept as it is",
}
_action = click.Choice([str(action) for action in FieldAction])


@click.group()
def rules() -> None:
    """Manage rules on fields: which columns are dropped or hashed when events are loaded.

    They are in order, and the first whose pattern matches a column counts. What matches none is
    kept. Landing files keep everything.
    """


@rules.command("list")
@click.argument("name")
@json_option
def list_(name: str, *, as_json: bool) -> None:
    """List the rules of the integration NAME in their order."""
    with closing(Registry.open(load_settings().registry)) as registry:
        found = registry.field_rules.list(registry.find(name))
    if as_json:
        print_json(
            [{"position": position, **_as_dict(rule)} for position, rule in _numbered(found)]
        )
        return
    if not found:
        click.echo("No rules: every field is loaded as it is.")
        return
    print_table(
        ("Position", "Rule id", "Pattern", "Action", "Added"),
        (
            (position, rule.id, rule.pattern, rule.action, rule.added_at)
            for position, rule in _numbered(found)
        ),
    )


@rules.command()
@click.argument("name")
@click.argument("pattern")
@click.argument("action", type=_action)
@click.option(
    "--position", type=click.IntRange(min=1), help="Place among the rules; last by default."
)
@json_option
def add(name: str, pattern: str, action: str, position: int | None, *, as_json: bool) -> None:
    """Add a rule for the columns of the integration NAME that PATTERN matches.

    \b
    drop  their values are not loaded
    hash  a keyed hash takes the place of each value
    keep  they are loaded as they are, whatever later rules say

    PATTERN is over the names of columns as the table has them, as data__recipient,
    'data__content__*' or '*email*': * stands for any characters, ? for one, [ab] for one of these.
    Quote it, since the shell has its own ideas of them.
    """  # noqa: D301  click's mark for text that keeps its lines
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        rule = registry.field_rules.add(integration, pattern, FieldAction(action), position)
        numbers = {
            one.id: number for number, one in _numbered(registry.field_rules.list(integration))
        }
    if as_json:
        print_json({"position": numbers.get(rule.id), **_as_dict(rule)})
        return
    click.echo(
        f'Added {rule.id} to "{integration.name}" as number {numbers.get(rule.id)}: what'
        f" {rule.pattern} matches is {_MEANING[rule.action]} from the next load on."
    )
    _say_what_stays(integration.schema)


@rules.command()
@click.argument("name")
@click.argument("rule")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, rule: str, *, yes: bool) -> None:
    """Remove RULE, its id or pattern, from the integration NAME."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        if not yes:
            click.confirm(
                f'Without {rule}, "{integration.name}" loads what the other rules do not drop or'
                " hash as it is. Remove it?",
                abort=True,
            )
        removed = registry.field_rules.remove(integration, rule)
    click.echo(
        f'Removed {removed.id} ({removed.action} {removed.pattern}) of "{integration.name}".'
    )
    _say_what_stays(integration.schema)


@rules.command()
@click.argument("name")
@click.argument("rule")
@click.argument("position", type=click.IntRange(min=1))
def move(name: str, rule: str, position: int) -> None:
    """Make RULE, its id or pattern, the number POSITION of the integration NAME."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        moved = registry.field_rules.move(integration, rule, position)
    click.echo(
        f'{moved.id} ({moved.action} {moved.pattern}) of "{integration.name}" is number {position}'
        " now."
    )
    _say_what_stays(integration.schema)


def _say_what_stays(schema: str) -> None:
    click.echo(
        f"Rows that are loaded stay as they are until `customerio-pipeline rebuild {schema}`."
    )


def _numbered(rules: Sequence[FieldRule]) -> list[tuple[int, FieldRule]]:
    return list(enumerate(rules, start=1))


def _as_dict(rule: FieldRule) -> dict[str, object]:
    return {
        "rule_id": rule.id,
        "pattern": rule.pattern,
        "action": rule.action,
        "added_at": rule.added_at,
    }
