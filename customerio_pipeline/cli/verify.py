"""``customerio-pipeline verify``: proof that nothing is missing."""

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict

import click

from customerio_pipeline.cli.output import print_json, print_table, say_if_copied
from customerio_pipeline.errors import LandingError
from customerio_pipeline.orchestration.integrations import layout_of
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.verifying.conservation import Account, Gap, account
from customerio_pipeline.verifying.content import Comparison, compare
from customerio_pipeline.warehouse import open_for_reading, open_warehouse

_SHOWN_HOURS = 24


@click.command()
@click.argument("name", required=False)
@click.option("--deep", is_flag=True, help="Load the landing files anew and compare every row.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(name: str | None, deep: bool, as_json: bool) -> None:
    """Prove that all that was acknowledged is landed and loaded: of one integration, or of all.

    Exits with 1, naming the gaps, when it does not add up. With --deep loads wait meanwhile.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        chosen = registry.integrations() if name is None else [registry.find(name)]
    accounts = _accounts(settings, chosen)
    compared = [_compare(settings, each) if deep else None for each in chosen]
    gaps = [
        [*one.gaps, *(other.gaps if other else ())]
        for one, other in zip(accounts, compared, strict=True)
    ]
    if as_json:
        print_json(
            [
                {
                    **asdict(one),
                    "gaps": [asdict(gap) for gap in found],
                    "compared_rows": other.rows if other else None,
                }
                for one, other, found in zip(accounts, compared, gaps, strict=True)
            ]
        )
    else:
        for one, other, found in zip(accounts, compared, gaps, strict=True):
            _print(one, other, found)
        if not chosen:
            click.echo('No integrations yet: customerio-pipeline integrations create "NAME"')
    if any(gaps):
        sys.exit(1)


def _accounts(settings: Settings, chosen: Sequence[Integration]) -> list[Account]:
    with closing(open_for_reading(settings)) as reader:
        found = [account(reader, settings.landing, settings.spool, each.schema) for each in chosen]
        say_if_copied(reader)
    return found


def _compare(settings: Settings, integration: Integration) -> Comparison:
    with closing(open_warehouse(settings)) as target:
        try:
            return compare(
                target,
                settings.landing,
                integration.schema,
                layout_of(settings, integration),
                scratch=settings.home,
            )
        except LandingError as error:
            # The account beside it has more to say.
            return Comparison(0, [Gap(f"Nothing was compared: {error}")])


def _print(found: Account, compared: Comparison | None, gaps: Sequence[Gap]) -> None:
    hours = found.hours[-_SHOWN_HOURS:]
    print_table(
        ["hour (UTC)", "writer", "files", "landed", "loaded", "held", "waiting"],
        [
            (
                line.hour,
                line.writer,
                line.files,
                line.landed,
                line.loaded,
                line.held,
                line.waiting,
            )
            for line in hours
        ],
        title=found.schema,
    )
    if len(hours) < len(found.hours):
        click.echo(f"{len(found.hours) - len(hours)} earlier lines: --json has them.")
    totals = found.totals
    adds_up = found.acknowledged == found.landed + found.spooled
    click.echo(
        f"received    {found.acknowledged:,} acknowledged {'=' if adds_up else '≠'}"
        f" {found.landed:,} landed + {found.spooled:,} in the spool"
        + (f"; {found.spool_note}" if found.spool_note else "")
    )
    adds_up = found.landed == found.loaded + found.held + found.waiting
    click.echo(
        f"deliveries  {found.landed:,} landed {'=' if adds_up else '≠'}"
        f" {found.loaded:,} loaded + {found.held:,} held + {found.waiting:,} waiting"
        + (f"; {found.expired:,} of them expired" if found.expired else "")
        + (f"; {found.erased:,} of them erased" if found.erased else "")
    )
    adds_up = totals.events == totals.rows + totals.duplicates + totals.rejected_rows
    click.echo(
        f"events      {totals.events:,} {'=' if adds_up else '≠'} {totals.rows:,} rows"
        f" + {totals.duplicates:,} duplicates + {totals.rejected_rows:,} rejected"
    )
    if compared is not None:
        click.echo(f"content     {compared.rows:,} rows compared with the landing files")
    for gap in gaps:
        click.echo(f"GAP         {gap.what}")
    gap_count = "1 gap" if len(gaps) == 1 else f"{len(gaps)} gaps"
    click.echo(f"{found.schema}: {gap_count if gaps else 'nothing is missing'}")
