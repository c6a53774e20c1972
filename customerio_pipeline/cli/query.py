"""``customerio-pipeline query``: read-only SQL on the warehouse."""

import csv
import sys
from contextlib import closing

import click

from customerio_pipeline.cli.output import print_json, print_table, say_if_copied
from customerio_pipeline.settings import load_settings
from customerio_pipeline.warehouse import open_for_reading


@click.command()
@click.argument("sql")
@click.option(
    "--format",
    "output",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print the rows.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def query(sql: str, output: str, as_json: bool) -> None:
    """Run one SQL statement and print its rows. The warehouse is opened read-only and briefly.

    While a load holds a DuckDB warehouse, its read copy answers.
    """
    with closing(open_for_reading(load_settings())) as reader:
        result = reader.query(sql)
    say_if_copied(reader)
    if as_json or output == "json":
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(result.rows)
    else:
        print_table(result.columns, result.rows)
