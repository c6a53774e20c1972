"""Keeping the views for analysts in DuckDB, beside the table."""

import logging

import duckdb

from customerio_pipeline.loading.target import ColumnType
from customerio_pipeline.warehouse.duckdb_file import CATALOG
from customerio_pipeline.warehouse.duckdb_tables import qualified
from customerio_pipeline.warehouse.view_columns import VIEWS
from customerio_pipeline.warehouse.view_expressions import DUCKDB
from customerio_pipeline.warehouse.views import version_of, view_definitions

# A view looks first in its own schema. With the schema's name before it, the file could not be
# opened under that same name: `customerio` in customerio.duckdb.
_TABLE = "data"

_log = logging.getLogger(__name__)


class DuckDBViews:
    """Makes the views anew when they are not as they should be; for all schemas of a file."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str]] = set()

    def keep(
        self,
        connection: duckdb.DuckDBPyConnection,
        schema: str,
        columns: dict[str, ColumnType | None],
    ) -> None:
        """Bring the views of `schema` up to date; within the transaction that changed `data`.

        What somebody else made under a view's name is left as it is.
        """
        found = _views(connection, schema)
        outdated = [
            view
            for view in view_definitions(columns, DUCKDB, _TABLE)
            if view.name not in found or version_of(found[view.name]) != version_of(view.comment)
        ]
        if not outdated:
            return
        foreign = {name for name, comment in found.items() if version_of(comment) is None}
        foreign |= _tables(connection, schema)
        for view in outdated:
            if view.name in foreign:
                self._tell(schema, view.name)
                continue
            name = qualified(schema, view.name)
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS {view.select}")
            connection.execute(f"COMMENT ON VIEW {name} IS '{view.comment}'")

    def _tell(self, schema: str, name: str) -> None:
        if (schema, name) in self._told:
            return
        self._told.add((schema, name))
        _log.warning(
            "%s.%s is left as it is: it was made by somebody else; rename it, and a load creates"
            " ours.",
            schema,
            name,
        )


def _views(connection: duckdb.DuckDBPyConnection, schema: str) -> dict[str, str | None]:
    """Return the comments of what is a view and has the name of one of ours, in whatever case."""
    found = connection.execute(
        "SELECT lower(view_name), comment FROM duckdb_views()"
        " WHERE database_name = ? AND schema_name = ?",
        [CATALOG, schema],
    ).fetchall()
    return {name: comment for name, comment in found if name in VIEWS}


def _tables(connection: duckdb.DuckDBPyConnection, schema: str) -> set[str]:
    found = connection.execute(
        "SELECT lower(table_name) FROM duckdb_tables() WHERE database_name = ? AND schema_name = ?",
        [CATALOG, schema],
    ).fetchall()
    return {row[0] for row in found}
