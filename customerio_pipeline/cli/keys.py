"""``customerio-pipeline keys``: signing keys, and what becomes of what none of them signed."""

import sys
from contextlib import closing

import click

from customerio_pipeline.cli.integrations import json_option
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.registry.records import SignatureMode, SignaturePolicy, SigningKey
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings

_MEANING = {
    SignatureMode.OFF: "signatures are not checked",
    SignatureMode.RECORD: "every delivery is loaded, the verdict is recorded",
    SignatureMode.REQUIRE: "a delivery that no key signed is kept and not loaded",
}


@click.group()
def keys() -> None:
    """Manage signing keys: what Customer.io signs its deliveries with.

    Several can be there at once. To replace one without a gap: add the new one, change it in
    Customer.io, remove the old one.
    """


@keys.command()
@click.argument("name")
@json_option
def add(name: str, *, as_json: bool) -> None:
    """Add a signing key to the integration NAME, read from standard input.

    Customer.io shows it on the webhook's page. It is no argument, since others can see those.
    """
    if sys.stdin.isatty():
        secret = click.prompt("Signing key", hide_input=True)
    else:
        secret = sys.stdin.readline()
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        key = registry.keys.add(integration, secret)
        policy = registry.keys.policy(integration)
    if as_json:
        print_json({**_as_dict(key), "mode": policy.in_force})
        return
    click.echo(f'Added {key.id} to "{integration.name}"; receivers know it within a second.')
    click.echo(f"Mode {policy.mode}: {_MEANING[policy.mode]}.")
    click.echo(
        f"Load what is held and matches now: `customerio-pipeline integrations reverify"
        f" {integration.schema}`."
    )


@keys.command("list")
@click.argument("name")
@json_option
def list_(name: str, *, as_json: bool) -> None:
    """List the signing keys of the integration NAME by their ids, and its mode."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        found = registry.keys.list(integration)
        policy = registry.keys.policy(integration)
    if as_json:
        print_json(
            {
                "mode": policy.mode,
                "in_force": policy.in_force,
                "keys": [_as_dict(key) for key in found],
            }
        )
        return
    if found:
        print_table(
            ("Key id", "State", "Added", "Removed"),
            ((key.id, _state(key), key.added_at, key.removed_at) for key in found),
        )
    click.echo(_mode_line(policy))


@keys.command()
@click.argument("name")
@click.argument("key_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, key_id: str, *, yes: bool) -> None:
    """Check signatures of the integration NAME with the key KEY_ID no more, and forget it."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        is_last = [key.id for key in registry.keys.policy(integration).keys] == [key_id]
        if is_last and not yes:
            click.confirm(
                f'{key_id} is the only key of "{integration.name}": without it, signatures are not'
                " checked any more. Remove it?",
                abort=True,
            )
        registry.keys.remove(integration, key_id)
        policy = registry.keys.policy(integration)
    click.echo(f'Removed {key_id} of "{integration.name}". {_mode_line(policy)}')


@keys.command()
@click.argument("name")
@click.argument("mode", type=click.Choice([str(mode) for mode in SignatureMode]))
def mode(name: str, mode: str) -> None:
    """Choose what becomes of a delivery to the integration NAME that no key signed.

    \b
    off      signatures are not checked
    record   it is loaded; the verdict is recorded
    require  it is kept and not loaded (the default once there is a key)
    """  # noqa: D301  click's mark for text that keeps its lines
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        registry.keys.set_mode(integration, SignatureMode(mode))
        policy = registry.keys.policy(integration)
    click.echo(f'"{integration.name}": {_mode_line(policy)}')


def _mode_line(policy: SignaturePolicy) -> str:
    if policy.keys or policy.mode is SignatureMode.OFF:
        return f"Mode {policy.mode}: {_MEANING[policy.mode]}."
    return f"Mode {policy.mode}, once there is a key; until then signatures are not checked."


def _state(key: SigningKey) -> str:
    return "live" if key.is_live else "removed"


def _as_dict(key: SigningKey) -> dict[str, object]:
    return {
        "key_id": key.id,
        "state": _state(key),
        "added_at": key.added_at,
        "removed_at": key.removed_at,
    }
