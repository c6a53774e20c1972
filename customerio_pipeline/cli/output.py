"""How commands print data: a table for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from customerio_pipeline.loading.target import Reader

_PIPE_WIDTH = 1000
"""Where there is no terminal, a table is as wide as its content."""


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
) -> None:
    """Print rows as a table as wide as the terminal allows."""
    # Folded, so that nothing is cut off where the terminal is narrow.
    # As `Text`, since square brackets and colons in data are not markup.
    headers = (Column(Text(name), overflow="fold") for name in columns)
    table = Table(*headers, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(_text(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(table)


def print_json(value: object) -> None:
    """Print one JSON document; times as ISO 8601."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_text))


def say_if_copied(reader: Reader) -> None:
    """Say on standard error that what was printed comes from a copy, and of when."""
    if reader.copied_at is not None:
        made_at = _text(reader.copied_at)
        click.echo(
            f"The warehouse cannot be read just now: this is its copy of {made_at}.", err=True
        )


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return str(value)
