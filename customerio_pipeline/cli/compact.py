"""``customerio-pipeline compact``: few landing files instead of many."""

from contextlib import closing

import click

from customerio_pipeline.cli.output import print_json
from customerio_pipeline.errors import PipelineError
from customerio_pipeline.landing.compaction import compact as compact_landing
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compact(name: str | None, as_json: bool) -> None:
    """Join the small landing files of hours that are over: of one integration, or of all.

    Dagster does it every hour. The rows stay the same, and loads and readers need not stop.
    """
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        chosen = registry.integrations() if name is None else [registry.find(name)]
    found = [compact_landing(settings.landing, each.schema) for each in chosen]
    if as_json:
        print_json([{**one._asdict(), "problems": list(map(str, one.problems))} for one in found])
    else:
        for one in found:
            click.echo(one.sentence)
    problems: list[PipelineError] = [problem for one in found for problem in one.problems]
    for problem in problems[:-1]:
        click.echo(f"Error: {problem}", err=True)
    if problems:
        raise problems[-1]
