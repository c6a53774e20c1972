"""docs/analytics.md: its statements, and the rows and columns that it shows.

``python -m tests.analytics_page`` writes rows and columns anew.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import count, islice
from pathlib import Path

from customerio_pipeline.simulator.events import START, generate
from customerio_pipeline.warehouse.view_columns import VIEWS
from tests.view_houses import DuckDBHouse, House

PAGE = Path(__file__).parent.parent / "docs" / "analytics.md"

_EVENTS = 10_000
_SECONDS_AN_EVENT = 120
_TABLE = r"\n\n?(?P<table>(?:^\|[^\n]*\n)*)\n?"
_FLAGS = re.MULTILINE | re.DOTALL
_STATEMENT = re.compile(rf"^```sql ?(?P<only>\w*)\n(?P<sql>.*?)^```{_TABLE}", _FLAGS)
_COLUMNS = re.compile(rf"^<!-- columns: (?P<view>\w+) -->{_TABLE}", _FLAGS)


def simulated_bodies() -> list[bytes]:
    """Return the events that the page is about."""
    seconds = (START + number * _SECONDS_AN_EVENT for number in count(1))
    events = generate(2026, now=lambda: next(seconds))
    return [event.body for event in islice(events, _EVENTS)]


def statements(warehouse: str) -> Iterator[tuple[str, str]]:
    """Yield each statement that is for a warehouse, with the table that it should give.

    A statement without one after it gives the same as the one before.
    """
    table = ""
    for found in _STATEMENT.finditer(PAGE.read_text()):
        table = found["table"] or table
        if found["only"] in ("", warehouse):
            yield found["sql"], table


def column_tables() -> dict[str, str]:
    """Return the tables of columns that the page shows, by view."""
    return {found["view"]: found["table"] for found in _COLUMNS.finditer(PAGE.read_text())}


def columns_of(view: str) -> str:
    """Return the table of a view's columns as it should be."""
    _, columns = VIEWS[view]
    rows = [(f"`{column.name}`", column.type, column.description) for column in columns]
    return markdown(("column", "type", "is"), rows)


def result_of(house: House, sql: str) -> str:
    """Return what a statement gives, as the page shows it."""
    return markdown(*house.query(sql))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    head = [tuple(columns), ("---",) * len(columns)]
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in [*head, *rows])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return str(value).replace("|", "\\|")


def _rewrite(house: House) -> None:
    def with_rows(found: re.Match[str]) -> str:
        fence = f"```sql {found['only']}".rstrip()
        shown = "" if found["only"] == "postgresql" else f"{result_of(house, found['sql'])}\n"
        return f"{fence}\n{found['sql']}```\n\n{shown}"

    def with_columns(found: re.Match[str]) -> str:
        return f"<!-- columns: {found['view']} -->\n\n{columns_of(found['view'])}\n"

    text = _COLUMNS.sub(with_columns, PAGE.read_text())
    PAGE.write_text(_STATEMENT.sub(with_rows, text).rstrip() + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        duck = DuckDBHouse(Path(folder))
        with closing(duck):
            duck.load(*simulated_bodies())
        _rewrite(duck)
