"""Stitch's table straight from a warehouse: copied once, as of one moment, into a Parquet file.

An import reads its source more than once, and a table changes meanwhile. The rows are put into an
order, so that a repeat gives the same records, hence the same writer.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import ImportFileError
from customerio_pipeline.importing import stitch_columns as stitch
from customerio_pipeline.importing.files import PARQUET, InputFile
from customerio_pipeline.warehouse.duckdb_tables import quoted
from customerio_pipeline.warehouse.postgres_connection import Connection, PostgresServer

_ORDER = (stitch.SEQUENCE, stitch.EVENT_ID, stitch.BATCHED_AT)
_ROWS_A_BATCH = 5000

# By PostgreSQL's numbers of types. Stitch makes no others (stitch-loading 3): they are texts here.
_ARROW_TYPES = {
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((700, 701), pa.float64()),
    16: pa.bool_(),
    1184: pa.timestamp("us", "UTC"),
}


class TableName(NamedTuple):
    """A table of a warehouse."""

    schema: str
    table: str

    def __str__(self) -> str:
        """Return it as SQL has it."""
        return f"{quoted(self.schema)}.{quoted(self.table)}"


@contextmanager
def copied_from_postgres(
    server: PostgresServer, table: TableName, progress: Callable[[int], None]
) -> Iterator[InputFile]:
    """Yield a copy of a table of PostgreSQL; `progress` is called with numbers of rows.

    Raises:
        ImportFileError: it cannot be read.
        WarehouseUnavailableError: the server cannot be reached.
    """
    name = f"{table.schema}.{table.table} of {server.shown}"
    with _temporary() as path:
        try:
            with closing(server.connect()) as connection, connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                _copy(connection, table, path, progress)
        except psycopg.Error as error:
            raise _unreadable(name, error) from None
        yield InputFile(name, path, PARQUET)


@contextmanager
def copied_from_duckdb(file: Path, table: TableName) -> Iterator[InputFile]:
    """Yield a copy of a table of a DuckDB file.

    Raises:
        ImportFileError: it cannot be read, or another process has the file open for writing.
    """
    name = f"{table.schema}.{table.table} of {file}"
    with _temporary() as path:
        try:
            with duckdb.connect(file, read_only=True) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                names = connection.table(str(table)).columns
                connection.execute(
                    f"COPY (SELECT * FROM {table}{_ordered(names)}) TO '{path}' (FORMAT parquet)"  # noqa: S608  quoted names
                )
        except duckdb.Error as error:
            raise _unreadable(name, error) from None
        yield InputFile(name, path, PARQUET)


def _copy(
    connection: Connection, table: TableName, path: Path, progress: Callable[[int], None]
) -> None:
    nothing = f"SELECT * FROM {table} LIMIT 0"  # noqa: S608  quoted names, here and below
    described = connection.execute(nothing.encode()).description or []
    fields = [(each.name, _ARROW_TYPES.get(each.type_code)) for each in described]
    schema = pa.schema([(name, kind or pa.string()) for name, kind in fields])
    columns = ", ".join(quoted(name) + ("" if kind else "::text") for name, kind in fields)
    # On the table's own columns: text sorts otherwise than what it stands for.
    order = _ordered([name for name, _ in fields], "rows.")
    query = f"SELECT {columns} FROM {table} AS rows{order}"  # noqa: S608
    with (
        pq.ParquetWriter(path, schema, compression="zstd") as writer,
        connection.cursor(name="customerio_import") as cursor,
    ):
        cursor.execute(query.encode())
        while rows := cursor.fetchmany(_ROWS_A_BATCH):
            values = zip(*rows, strict=True)
            arrays = [
                pa.array(column, kind) for column, kind in zip(values, schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            progress(len(rows))


def _ordered(names: Sequence[str], prefix: str = "") -> str:
    """Return the clause that orders rows; what is no table of Stitch's is refused later."""
    columns = [prefix + quoted(name) for name in _ORDER if name in names]
    return f" ORDER BY {', '.join(columns)}" if columns else ""


@contextmanager
def _temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="customerio-import-") as folder:
        yield Path(folder) / "table.parquet"


def _unreadable(name: str, error: Exception) -> ImportFileError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return ImportFileError(f"{name} cannot be read ({reason}); nothing was imported.")
