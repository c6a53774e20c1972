"""``customerio-pipeline api-tokens``: create, list and revoke tokens of the management API."""

from contextlib import closing

import click

from customerio_pipeline.cli.integrations import json_option
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.registry.records import ApiToken
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings


@click.group("api-tokens")
def api_tokens() -> None:
    """Manage tokens of the API on the admin port: each can do all that the API can.

    Give each program a token of its own, so that one can be revoked alone.
    """


@api_tokens.command()
@click.argument("name")
@json_option
def create(name: str, *, as_json: bool) -> None:
    """Make a token and print it, this once; NAME says what it is for."""
    with closing(Registry.open(load_settings().registry)) as registry:
        new = registry.api_tokens.create(name)
    if as_json:
        print_json({"token_id": new.id, "token": new.token})
        return
    click.echo(f"  Token id  {new.id}")
    click.echo(f"  Token     {new.token}\n")
    click.echo(
        "The token is a secret and is shown only now, since nothing but its hash is kept.\n"
        'Send it with every request to /api: "Authorization: Bearer TOKEN".'
    )


@api_tokens.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the tokens by their ids, and when each was last used."""
    with closing(Registry.open(load_settings().registry)) as registry:
        found = registry.api_tokens.list()
    if as_json:
        print_json([_as_dict(token) for token in found])
    elif found:
        print_table(
            ("Token id", "Name", "State", "Created", "Last used", "Revoked"),
            (
                (
                    token.id,
                    token.name,
                    _state(token),
                    token.created_at,
                    token.last_used_at,
                    token.revoked_at,
                )
                for token in found
            ),
        )
    else:
        click.echo("No API token yet: `customerio-pipeline api-tokens create NAME` makes one.")


@api_tokens.command()
@click.argument("token_id")
def revoke(token_id: str) -> None:
    """Take the token TOKEN_ID no more, from the next request on."""
    with closing(Registry.open(load_settings().registry)) as registry:
        revoked = registry.api_tokens.revoke(token_id)
    click.echo(f'Revoked {revoked.id}, "{revoked.name}": the API takes it no more.')


def _state(token: ApiToken) -> str:
    return "live" if token.is_live else "revoked"


def _as_dict(token: ApiToken) -> dict[str, object]:
    return {
        "token_id": token.id,
        "name": token.name,
        "state": _state(token),
        "created_at": token.created_at,
        "last_used_at": token.last_used_at,
        "revoked_at": token.revoked_at,
    }
