"""``customerio-pipeline import``: events of other origin, through the landing zone."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from customerio_pipeline.cli.moments import Moment
from customerio_pipeline.cli.output import print_json
from customerio_pipeline.errors import LandingError
from customerio_pipeline.importing.files import PARQUET, STDIN, InputFile, input_files
from customerio_pipeline.importing.landing import Imported, identify, land
from customerio_pipeline.importing.lines import Lines
from customerio_pipeline.importing.parquet import ParquetEvents
from customerio_pipeline.importing.records import Source
from customerio_pipeline.importing.stitch_table import StitchTable
from customerio_pipeline.importing.tables import (
    TableName,
    copied_from_duckdb,
    copied_from_postgres,
)
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.warehouse.postgres_connection import PostgresServer

_SECOND_NS = 1_000_000_000


@click.command("import")
@click.argument("name")
@click.argument("files", metavar="[FILE...]", nargs=-1)
@click.option("--column", help="Column of a Parquet file that holds the JSON of the events.")
@click.option(
    "--received-at",
    type=Moment(),
    help="When the events count as received; by default each when it happened (its `timestamp`).",
)
@click.option(
    "--stitch-table",
    is_flag=True,
    help="FILEs are Stitch's table `data`, as Parquet or CSV: its rows become events again.",
)
@click.option(
    "--from-table",
    metavar="SCHEMA.TABLE",
    help="Read Stitch's table from a warehouse: FILE is a DuckDB file; or PostgreSQL at the URL in"
    " CUSTOMERIO_IMPORT_URL, or on standard input where FILE is -.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_events(  # noqa: PLR0913  the options
    name: str,
    files: tuple[str, ...],
    column: str | None,
    received_at: datetime | None,
    *,
    stitch_table: bool,
    from_table: str | None,
    as_json: bool,
) -> None:
    """Land raw Customer.io events from files; the next load takes them.

    A FILE holds JSON lines (also in gzip or zstd; - is standard input), or is a Parquet file: of
    another landing zone, or with the JSON of each event in a column. Importing a file again, or
    after an interruption, lands only what is not there yet.
    """
    if (stitch_table or from_table) and (column or received_at):
        raise click.UsageError(
            "--stitch-table and --from-table take neither --column nor --received-at."
        )
    if not files and from_table is None:
        raise click.UsageError("Missing argument 'FILE...'.")
    if received_at is not None and received_at > datetime.now(UTC):
        raise click.BadParameter(
            "it is in the future: what came then would never be replaced by what really comes.",
            param_hint="--received-at",
        )
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        schema = registry.find(name).schema
    received_at_ns = None if received_at is None else round(received_at.timestamp() * _SECOND_NS)
    is_stitch = stitch_table or from_table is not None
    with ExitStack() as stack:
        opened = (
            stack.enter_context(input_files(files))
            if from_table is None
            else [_copied(settings, files, from_table, stack)]
        )
        sources = [StitchTable(file) if is_stitch else _source(file, column) for file in opened]
        found = _land(settings.landing, schema, sources, received_at_ns)
    if as_json:
        print_json({"schema": schema, "files": [asdict(each) for each in found]})
    else:
        _print(schema, found)


def _copied(
    settings: Settings, files: Sequence[str], from_table: str, stack: ExitStack
) -> InputFile:
    """Return a copy of a table, which goes with `stack`.

    Raises:
        click.UsageError: it is not said where the table is.
    """
    schema, _, name = from_table.partition(".")
    if not schema or not name:
        raise click.BadParameter("it must be SCHEMA.TABLE.", param_hint="--from-table")
    if len(files) > 1:
        raise click.UsageError("--from-table reads one table: give one FILE, or none.")
    if files and "://" in files[0]:
        raise click.UsageError(
            "A URL is no FILE, as others see the command line: put it into CUSTOMERIO_IMPORT_URL,"
            " or give - and write it to standard input."
        )
    table = TableName(schema, name)
    if files and files[0] != STDIN:
        return stack.enter_context(copied_from_duckdb(Path(files[0]), table))
    if files:
        server = PostgresServer(sys.stdin.readline().strip(), "The URL on standard input")
    elif settings.import_url is not None:
        server = PostgresServer(settings.import_url.get_secret_value(), "CUSTOMERIO_IMPORT_URL")
    else:
        raise click.UsageError(
            "Say where the table is: a DuckDB FILE, or PostgreSQL's URL in CUSTOMERIO_IMPORT_URL."
        )
    with _progress() as progress:
        task = progress.add_task(f"copying {from_table}", total=None)
        advance = partial(progress.advance, task)
        return stack.enter_context(copied_from_postgres(server, table, advance))


def _source(file: InputFile, column: str | None) -> Source:
    return ParquetEvents(file, column) if file.magic == PARQUET else Lines(file)


def _land(
    landing: Path, schema: str, sources: Sequence[Source], received_at_ns: int | None
) -> list[Imported]:
    """Land all sources, once all of them were read to their ends."""
    with _progress() as progress:
        identified = []
        for source in sources:
            task = progress.add_task(f"reading {source.name}", total=None)
            identified.append(identify(source, received_at_ns, partial(progress.advance, task)))
            progress.remove_task(task)
        found = []
        for each in identified:
            task = progress.add_task(f"landing {each.source.name}", total=each.records)
            try:
                found.append(
                    land(landing, schema, each, received_at_ns, partial(progress.advance, task))
                )
            except OSError as error:
                raise LandingError(
                    f"The landing folder {landing} cannot be written"
                    f" ({error.strerror or error}); import {each.source.name} again, what is"
                    " missing will be landed."
                ) from error
    return found


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        # On standard error, for standard output may be JSON.
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _print(schema: str, found: Sequence[Imported]) -> None:
    for each in found:
        before = each.records - each.landed
        click.echo(
            f"{each.file}: {each.records:,} records, {each.landed:,} landed"
            f"{f', {before:,} were already' if before else ''} (writer {each.writer})"
        )
    if any(each.landed for each in found):
        click.echo(f"The next load takes them: customerio-pipeline load {schema}")
