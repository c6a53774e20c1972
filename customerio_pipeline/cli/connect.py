"""``customerio-pipeline integrations connect``: Customer.io's webhook, made by its App API."""

import sys
from contextlib import closing

import click

from customerio_pipeline.cli.output import print_json
from customerio_pipeline.connecting.app_api import REGIONS, AppApi, checked_key
from customerio_pipeline.connecting.connect import Connection, Wanted
from customerio_pipeline.connecting.connect import connect as connect_integration
from customerio_pipeline.registry.records import Integration, SignaturePolicy
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings

_DONE = {
    "created": "Created the webhook",
    "updated": "Updated the webhook",
    "unchanged": "Nothing to change in the webhook",
}


@click.command()
@click.argument("name")
@click.option(
    "--region",
    type=click.Choice(list(REGIONS)),
    default="us",
    show_default=True,
    help="Region of the Customer.io account; CUSTOMERIO_APP_API_URL prevails.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="EVENT",
    help="An event to send, such as email_opened; give it again for more. All, when not given.",
)
@click.option("--enable", is_flag=True, help="Let it send; needs a signing key (`keys add`).")
@click.option(
    "--url-from-stdin",
    is_flag=True,
    help="Use the webhook URL in the second line of standard input, instead of making one.",
)
@click.option("--webhook-name", help="Name of a new webhook in Customer.io; NAME when not given.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def connect(  # noqa: PLR0913  options
    name: str,
    region: str,
    events: tuple[str, ...],
    *,
    enable: bool,
    url_from_stdin: bool,
    webhook_name: str | None,
    as_json: bool,
) -> None:
    """Make Customer.io's reporting webhook send to the integration NAME.

    The App API key is read from standard input. A new webhook is made disabled: add its signing
    key, then run this again with --enable. Run again, it finds the webhook and changes what
    differs.
    """
    key, url = _read(with_url=url_from_stdin)
    settings = load_settings()
    api = AppApi(settings.app_api_url or REGIONS[region], checked_key(key))
    wanted = Wanted(events=events or None, enable=enable, url=url, name=webhook_name)
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
        made = connect_integration(registry, api, integration, settings.public_url, wanted)
        policy = registry.keys.policy(integration)
        others = [
            one.id for one in registry.urls(integration) if one.is_live and one.id != made.url_id
        ]
    if as_json:
        print_json(_as_dict(made))
        return
    _print(integration, made, policy)
    if others:
        click.echo(
            f"{others[0]} is live, too: revoke it if nothing uses it"
            f" (`customerio-pipeline urls revoke {integration.schema} {others[0]}`)."
        )


def _read(*, with_url: bool) -> tuple[str, str | None]:
    if sys.stdin.isatty():
        key = click.prompt("App API key", hide_input=True)
        return key, click.prompt("Webhook URL", hide_input=True) if with_url else None
    key = sys.stdin.readline()
    return key, sys.stdin.readline().strip() if with_url else None


def _print(integration: Integration, made: Connection, policy: SignaturePolicy) -> None:
    webhook = made.webhook
    click.echo(
        f'{_DONE[made.done]} "{webhook.name}" (id {webhook.id}) in Customer.io: it calls'
        f" {made.url_id} with {len(webhook.events)} kinds of events."
    )
    again = f"`customerio-pipeline integrations connect {integration.schema} --enable`"
    if not webhook.disabled:
        click.echo("It is enabled.")
    elif policy.keys:
        click.echo(f"It is disabled. Enable it: {again}.")
    else:
        click.echo(
            "It is disabled until it has a signing key: copy the key from the webhook's page in"
            " Customer.io,\nadd it with"
            f" `customerio-pipeline keys add {integration.schema}`, then {again}."
        )


def _as_dict(made: Connection) -> dict[str, object]:
    return {
        "webhook_id": made.webhook.id,
        "webhook_name": made.webhook.name,
        "done": made.done,
        "url_id": made.url_id,
        "enabled": not made.webhook.disabled,
        "events": made.webhook.events,
    }
