"""``customerio-pipeline erase``: a person is removed from landing and from the tables."""

import sys
from contextlib import closing
from dataclasses import asdict

import click

from customerio_pipeline.cli.landing_wait import wait_for_landing
from customerio_pipeline.cli.output import print_json, print_table
from customerio_pipeline.orchestration.integrations import layout_of
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.verifying.erasing import Erasing
from customerio_pipeline.verifying.erasing import erase as erase_person
from customerio_pipeline.warehouse import open_warehouse
from receiver.spool_depth import measure_depth

_STANDARD_INPUT = "-"


@click.command()
@click.argument("name")
@click.option(
    "--customer-id", "customer_ids", multiple=True, help="Customer id; - reads standard input."
)
@click.option(
    "--email", "emails", multiple=True, help="E-mail address, in any case; - reads standard input."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def erase(
    name: str, customer_ids: tuple[str, ...], emails: tuple[str, ...], *, as_json: bool
) -> None:
    """Erase a person from the integration NAME: from landing, the tables and the views.

    Give every customer id and address of the person. What happened up to now goes, and no load,
    import or rebuild brings it back; what the person does later is new. There is no way back.
    Arguments show in the list of processes: with - they are read from standard input, one a line.
    """
    settings = load_settings()
    ids, addresses = _values(customer_ids, emails)
    with closing(Registry.open(settings.registry)) as registry:
        integration = registry.find(name)
    masking = layout_of(settings, integration).masking
    wait_for_landing(settings)
    with closing(open_warehouse(settings)) as target:
        found = erase_person(
            target, settings.landing, integration.schema, ids, addresses, masking=masking
        )
        target.publish(force=True)
    spool = _spool_bytes(settings)
    if as_json:
        print_json(
            {
                **asdict(found),
                "places": [place._asdict() for place in found.places],
                "spool_bytes": spool,
                "is_complete": found.is_complete,
            }
        )
    else:
        _print(found, spool)
    if not found.is_complete:
        sys.exit(1)


def _values(customer_ids: tuple[str, ...], emails: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the values, those of standard input among them.

    Raises:
        click.UsageError: there is none, or one cannot be.
    """
    if _STANDARD_INPUT in customer_ids and _STANDARD_INPUT in emails:
        raise click.UsageError("Only one of --customer-id and --email can be read from - at once.")
    found = []
    for values in (customer_ids, emails):
        given = [value for value in values if value != _STANDARD_INPUT]
        if _STANDARD_INPUT in values:
            given += sys.stdin.read().splitlines()
        found.append([value.strip() for value in given if value.strip()])
    ids, addresses = found
    if not ids and not addresses:
        raise click.UsageError("Say who: --customer-id or --email, one or more of each.")
    if any("@" not in address for address in addresses):
        raise click.BadParameter("that is no e-mail address.", param_hint="--email")
    return ids, addresses


def _spool_bytes(settings: Settings) -> int:
    """Return how much waits in the spool: it may hold something of the person, too."""
    try:
        return measure_depth(settings.spool).bytes
    except OSError:
        return 0


def _print(found: Erasing, spool: int) -> None:
    print_table(
        ["place", "before", "after"],
        [(each.place, each.before, each.after) for each in found.places],
        title=found.schema,
    )
    for problem in found.problems:
        click.echo(f"LEFT        {problem}")
    if spool:
        click.echo(
            f"The spool holds {spool:,} bytes that have not landed: what is the person's in them is"
            " never loaded, and Dagster erases it from landing after the load that leaves it out."
        )
    click.echo(
        f"{found.schema}: {found.events:,} events erased; _erasures/{found.erasure} keeps it so"
        if found.is_complete
        else f"{found.schema}: not everything is erased; see to it, and run the command again"
    )
