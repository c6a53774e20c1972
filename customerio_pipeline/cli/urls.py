"""``customerio-pipeline urls``: generate, list and revoke webhook URLs."""

from contextlib import closing
from datetime import UTC, datetime

import click

from customerio_pipeline.cli.integrations import (
    json_option,
    new_url_as_dict,
    print_new_url,
    url_as_dict,
)
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from customerio_pipeline.verifying.activity import Activity, safe_to_revoke


@click.group()
def urls() -> None:
    """Manage webhook URLs; at most two of an integration are live.

    To replace one without a gap: generate, paste the new one into Customer.io, revoke the old one.
    """


@urls.command()
@click.argument("name")
@json_option
def generate(name: str, *, as_json: bool) -> None:
    """Make a further URL for the integration NAME and print it, this once."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
        new = registry.generate_url(integration)
    if as_json:
        print_json(new_url_as_dict(settings, new))
        return
    click.echo(f'A further URL of "{integration.name}":\n')
    print_new_url(settings, new)


@urls.command("list")
@click.argument("name")
@json_option
def list_(name: str, *, as_json: bool) -> None:
    """List the URLs of the integration NAME, and how the live ones are used.

    The older of two is safe to revoke once it has been quiet for an hour and the newer one is in
    use.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
        found = registry.urls(integration)
    now = datetime.now(UTC)
    live = {url.id: url.created_at for url in found if url.is_live}
    uses = Activity(settings.landing, integration.schema).use_of_urls(now, live)
    safe = safe_to_revoke(list(live), uses, now)
    listed = [
        url_as_dict(url)
        | {
            "last_used_at": uses[url.id].last_used if url.id in uses else None,
            "calls_24h": uses[url.id].calls if url.id in uses else 0,
            "safe_to_revoke": url.id in safe,
        }
        for url in found
    ]
    if as_json:
        print_json(listed)
        return
    print_table(
        ("URL id", "State", "Created", "Revoked", "Last used", "Calls in 24 h", "Safe to revoke"),
        [[*list(row.values())[:-1], "yes" if row["safe_to_revoke"] else ""] for row in listed],
    )


@urls.command()
@click.argument("name")
@click.argument("url_id")
def revoke(name: str, url_id: str) -> None:
    """Make the URL URL_ID of the integration NAME stop working within a second."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        registry.revoke_url(integration, url_id)
        live = [url.id for url in registry.urls(integration) if url.is_live]
    left = f"still live: {', '.join(live)}" if live else "no URL of it is live now"
    click.echo(f'Revoked {url_id} of "{integration.name}"; {left}.')
