"""One read-only statement on a DuckDB file, and errors that its author understands."""

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import duckdb

from customerio_pipeline.errors import QueryError
from customerio_pipeline.loading.target import QueryResult
from customerio_pipeline.warehouse.duckdb_errors import is_damage, reason
from customerio_pipeline.warehouse.duckdb_file import ALIAS, ENGINE_CONFIG, attached, damaged

_MARKER = re.compile(r"\nLINE (?P<number>\d+): (?P<line>.*)\n(?P<indent> *)\^")
_WORD = re.compile(r'"[^"]*"|[\w.]+|[^\w\s]+')


def run_query(
    file: Path, sql: str, parameters: Sequence[object], wait_seconds: float
) -> QueryResult:
    """Open `file` read-only for one statement.

    Raises:
        QueryError: the statement cannot be run.
        WarehouseError: the file cannot be opened, or is damaged.
    """
    # A connection of its own: the statement may name tables without the attached file's alias.
    with (
        closing(duckdb.connect(config=ENGINE_CONFIG)) as engine,
        attached(engine, file, read_only=True, wait_seconds=wait_seconds),
    ):
        engine.execute(f"USE {ALIAS}")
        # Read-only is the file; this keeps a statement from other files, too.
        engine.execute("SET enable_external_access = false")
        try:
            relation = engine.sql(sql, params=list(parameters))
            if relation is None:
                raise QueryError("The query has no result: give one SELECT statement.")
            result = relation.to_arrow_table()
        except duckdb.Error as error:
            if is_damage(error):
                raise damaged(file, error) from error
            raise QueryError(f"The query failed: {_explanation(error)}.") from error
        finally:
            engine.execute("USE memory")
    values = [column.to_pylist() for column in result.columns]
    return QueryResult(result.column_names, list(zip(*values, strict=True)))


def _explanation(error: duckdb.Error) -> str:
    """Return DuckDB's text on one line, with the place in the statement at its end."""
    text = str(error)
    marker = _MARKER.search(text)
    lines = [line.strip() for line in text.split("\n\n", maxsplit=1)[0].splitlines()]
    more = "; ".join(filter(None, lines[1:])).replace(":; ", ": ")
    sentence = ". ".join(filter(None, [reason(error), more])).rstrip(".! ")
    if marker is None:
        return sentence
    place = len(marker["indent"]) - len(f"LINE {marker['number']}: ")
    word = _WORD.match(marker["line"], place) if place >= 0 else None
    return f"{sentence} (line {marker['number']}{f', at {word[0]}' if word else ''})"
