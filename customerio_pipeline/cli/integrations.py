"""``customerio-pipeline integrations``: create, connect, list, show, rename, pause, delete, …."""

from contextlib import closing
from urllib.parse import urlsplit

import click

from customerio_pipeline.cli.connect import connect
from customerio_pipeline.cli.landing_wait import wait_for_landing
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing import reverification
from customerio_pipeline.orchestration.reload import reload_definitions
from customerio_pipeline.registry.records import Arrays, Integration, NewUrl, WebhookUrl
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.registry.tokens import webhook_url
from customerio_pipeline.settings import Settings, load_settings

# Hosts of a public URL that Customer.io cannot reach.
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def integrations() -> None:
    """Manage integrations: sources of events, each with a schema of its own.

    NAME is an integration's display name, in whatever case, or its schema.
    """


integrations.add_command(connect)


@integrations.command()
@click.argument("name")
@click.option("--schema", help="Schema to load into; derived from NAME when not given.")
@click.option(
    "--reuse-schema",
    is_flag=True,
    help="Take the schema of a deleted integration and continue its tables.",
)
@click.option(
    "--arrays",
    type=click.Choice([str(arrays) for arrays in Arrays]),
    default=str(Arrays.JSON),
    show_default=True,
    help="Arrays of events: JSON text in a column of data, or tables of their own, as in Stitch.",
)
@json_option
def create(
    name: str, schema: str | None, *, reuse_schema: bool, arrays: str, as_json: bool
) -> None:
    """Create an integration and print its webhook URL, this once."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration, new = registry.create(
            name, schema, reuse_schema=reuse_schema, arrays=Arrays(arrays)
        )
    is_told = reload_definitions(settings)
    if as_json:
        print_json(
            _as_dict(integration) | new_url_as_dict(settings, new) | {"dagster_reloaded": is_told}
        )
        return
    click.echo(f'Created the integration "{integration.name}".\n')
    click.echo(f"  Schema       {integration.schema}")
    print_new_url(settings, new)
    click.echo(
        "\nNext, in Customer.io: Data & Integrations > Integrations > Reporting Webhooks: add a "
        "webhook,\npaste the URL, choose the events, press Send Test, save. With an App API key,"
        f"\n`customerio-pipeline integrations connect {integration.schema}` does it."
    )
    _print_told(settings, is_told=is_told)


@integrations.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the integrations."""
    with closing(Registry.open(load_settings().registry)) as registry:
        found = [
            (integration, registry.urls(integration)) for integration in registry.integrations()
        ]
    if as_json:
        print_json(
            [
                _as_dict(integration) | {"live_urls": [url.id for url in urls if url.is_live]}
                for integration, urls in found
            ]
        )
    elif found:
        print_table(
            ("Name", "Schema", "State", "Live URLs", "Created"),
            (
                (one.name, one.schema, one.state, sum(url.is_live for url in urls), one.created_at)
                for one, urls in found
            ),
        )
    else:
        click.echo("No integration yet: `customerio-pipeline integrations create NAME` makes one.")


@integrations.command()
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show an integration and its URLs."""
    with closing(Registry.open(load_settings().registry)) as registry:
        integration = registry.find(name)
        urls = registry.urls(integration)
    if as_json:
        print_json(_as_dict(integration) | {"urls": [url_as_dict(url) for url in urls]})
        return
    print_table(("Integration", integration.name), _as_dict(integration).items())
    print_urls(urls)


@integrations.command()
@click.argument("name")
@click.argument("new_name", metavar="NEW")
def rename(name: str, new_name: str) -> None:
    """Give an integration another display name; its schema stays."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        old = registry.find(name)
        renamed = registry.rename(old, new_name)
    click.echo(f'"{old.name}" is now "{renamed.name}"; its schema is still {renamed.schema}.')
    _print_told(settings, is_told=reload_definitions(settings))


@integrations.command()
@click.argument("name")
def pause(name: str) -> None:
    """Stop loading; events are still received and kept."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        paused = registry.pause(registry.find(name))
    click.echo(f'"{paused.name}" is paused: events are received and kept, not loaded.')
    _print_told(settings, is_told=reload_definitions(settings))


@integrations.command()
@click.argument("name")
def resume(name: str) -> None:
    """Load again, beginning with what arrived meanwhile."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        resumed = registry.resume(registry.find(name))
    click.echo(f'"{resumed.name}" is active: what arrived meanwhile is loaded too.')
    _print_told(settings, is_told=reload_definitions(settings))


@integrations.command()
@click.argument("name")
@json_option
def reverify(name: str, *, as_json: bool) -> None:
    """Look again at what is held: what a signing key of today matches is loaded next.

    Where the mode is not `require`, or there is no key, everything is.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
        wait_for_landing(settings)
        policy = registry.keys.policy(integration)
        try:
            found = reverification.reverify(
                settings.landing, integration.schema, policy, settings.signature_tolerance_seconds
            )
        except OSError as error:
            raise LandingError(
                f"Nothing was released: {settings.landing} cannot be written to ({error.strerror})."
            ) from None
        # What is held still may be joined by as much again.
        registry.keys.begin_epoch(integration)
    if as_json:
        print_json({"released": found.released, "held": found.held})
    else:
        click.echo(
            f'"{integration.name}": {found.released} held deliveries released, the next load takes'
            f" them; {found.held} held still."
        )
    for damage in found.damaged:
        raise damage


@integrations.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, *, yes: bool) -> None:
    """Make the URLs stop working; tables and landing files stay."""
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
        if not yes:
            click.confirm(
                f'Delete "{integration.name}"? Its URLs stop working at once; the tables in '
                f"{integration.schema} and its landing files stay.",
                abort=True,
            )
        registry.delete(integration)
    click.echo(f'Deleted "{integration.name}"; the tables in {integration.schema} stay.')
    _print_told(settings, is_told=reload_definitions(settings))


def print_new_url(settings: Settings, new: NewUrl) -> None:
    """Print a URL just made, this once."""
    click.echo(f"  URL id       {new.id}")
    click.echo(f"  Webhook URL  {webhook_url(settings.public_url, new.token)}\n")
    click.echo(
        "The webhook URL is a secret and is shown only now, since nothing but its hash is kept.\n"
        "A lost one is replaced with `customerio-pipeline urls generate`."
    )
    if urlsplit(settings.public_url).hostname in _LOOPBACK:
        click.echo(
            "Only this machine can call it: for Customer.io, set CUSTOMERIO_PUBLIC_URL to the "
            "receiver's\naddress on the Internet before making a URL, or replace that part by hand."
        )


def print_urls(urls: list[WebhookUrl]) -> None:
    """Print URLs as a table, without their tokens, which nobody knows any more."""
    print_table(
        ("URL id", "State", "Created", "Revoked"),
        ((url.id, _state(url), url.created_at, url.revoked_at) for url in urls),
    )


def new_url_as_dict(settings: Settings, new: NewUrl) -> dict[str, object]:
    """Return what JSON shows of a URL just made."""
    return {"url_id": new.id, "webhook_url": webhook_url(settings.public_url, new.token)}


def url_as_dict(url: WebhookUrl) -> dict[str, object]:
    """Return what JSON shows of a URL."""
    return {
        "url_id": url.id,
        "state": _state(url),
        "created_at": url.created_at,
        "revoked_at": url.revoked_at,
    }


def _state(url: WebhookUrl) -> str:
    return "live" if url.is_live else "revoked"


def _as_dict(integration: Integration) -> dict[str, object]:
    return {
        "name": integration.name,
        "schema": integration.schema,
        "state": integration.state,
        "created_at": integration.created_at,
        "arrays": integration.arrays,
    }


def _print_told(settings: Settings, *, is_told: bool) -> None:
    if is_told:
        click.echo("The running Dagster was told and shows it in a moment.")
    else:
        click.echo(
            f"No Dagster answers at {settings.dagster_url} (CUSTOMERIO_DAGSTER_URL): it will show"
            " this when it starts."
        )
