"""DuckDB as the warehouse: one file, opened only while a batch is merged or read."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from customerio_pipeline.errors import (
    QueryError,
    WarehouseBusyError,
    WarehouseError,
    WarehouseUnavailableError,
)
from customerio_pipeline.loading.target import (
    DATA,
    Batch,
    ColumnType,
    MergeCounts,
    QueryResult,
    SchemaState,
)
from customerio_pipeline.warehouse import duckdb_merge
from customerio_pipeline.warehouse.duckdb_file import (
    ALIAS,
    CATALOG,
    ENGINE_CONFIG,
    attached,
    unavailable,
)
from customerio_pipeline.warehouse.duckdb_tables import COLUMN_TYPES, KEY, qualified
from customerio_pipeline.warehouse.table_rows import schema_state

_LOCK_POLL_SECONDS = 0.02
_URL_PREFIX = "duckdb:///"


class DuckDBTarget:
    """A `Target` in one DuckDB file.

    The in-memory engine stays warm between batches; the file is attached for each and detached
    after it, so that other processes get in between.
    """

    def __init__(self, file: Path, *, wait_seconds: float) -> None:
        self._file = file
        self._wait_seconds = wait_seconds
        self._connection = duckdb.connect(config=ENGINE_CONFIG)

    @classmethod
    def from_url(cls, url: str, *, wait_seconds: float) -> "DuckDBTarget":
        """Open ``duckdb:///path``; a relative path starts at the working folder."""
        return cls(Path(url.removeprefix(_URL_PREFIX)).absolute(), wait_seconds=wait_seconds)

    @contextmanager
    def exclusive(self, schema: str) -> Iterator[None]:
        """Hold the load lock of `schema`: a lock file beside the warehouse, freed by the kernel."""
        lock_file = self._file.with_name(f".{self._file.name}.{schema}.lock")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise unavailable(self._file, error) from error
        try:
            self._wait_for_lock(descriptor, schema)
            yield
        finally:
            os.close(descriptor)

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when the file or the schema is not there yet."""
        if not self._file.exists():
            return SchemaState({}, (), {})
        with self._attached(read_only=True):
            found = self._connection.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns()"
                " WHERE database_name = ? AND schema_name = ?",
                [CATALOG, schema],
            ).fetchall()
            types = {name: kind for kind, name in COLUMN_TYPES.items()}
            tables: dict[str, dict[str, ColumnType | None]] = {}
            for table, name, kind in found:
                if name != KEY:
                    tables.setdefault(table, {})[name] = types.get(kind)
            if DATA not in tables:
                return SchemaState({}, (), {})
            watermarks = self._connection.execute(
                "SELECT writer, first_offset, next_offset"
                f" FROM {qualified(schema, '_sdc_watermarks')}"
            ).fetchall()
            columns = self._connection.execute(
                "SELECT name, type, path, kind, base_name, table_name"
                f" FROM {qualified(schema, '_sdc_columns')}"
            ).fetchall()
        return schema_state(watermarks, columns, tables)

    def merge(self, schema: str, batch: Batch) -> MergeCounts:
        """Apply the batch in one transaction (design C4)."""
        with self._attached(read_only=False):
            try:
                return duckdb_merge.merge(self._connection, schema, batch)
            except duckdb.Error as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise WarehouseError(
                    f"The warehouse {self._file} refused a load of {schema}: {reason}; nothing"
                    " was changed."
                ) from error

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement with the file opened for just that."""
        if not self._file.exists():
            raise WarehouseUnavailableError(
                f"The warehouse {self._file} does not exist yet; the first load creates it."
            )
        # A connection of its own: the statement may name tables without the attached file's alias.
        engine = duckdb.connect(config=ENGINE_CONFIG)
        try:
            with attached(engine, self._file, read_only=True, wait_seconds=self._wait_seconds):
                engine.execute(f"USE {ALIAS}")
                # Read-only is the file; this keeps a statement from other files, too.
                engine.execute("SET enable_external_access = false")
                try:
                    relation = engine.sql(sql, params=list(parameters))
                    if relation is None:
                        raise QueryError("The query has no result: give one SELECT statement.")
                    result = relation.to_arrow_table()
                except duckdb.Error as error:
                    raise QueryError(f"The query failed: {error}") from error
                finally:
                    engine.execute("USE memory")
        finally:
            engine.close()
        values = [column.to_pylist() for column in result.columns]
        return QueryResult(result.column_names, list(zip(*values, strict=True)))

    def close(self) -> None:
        """Close the in-memory engine."""
        self._connection.close()

    @contextmanager
    def _attached(self, *, read_only: bool) -> Iterator[None]:
        with attached(
            self._connection, self._file, read_only=read_only, wait_seconds=self._wait_seconds
        ):
            yield

    def _wait_for_lock(self, descriptor: int, schema: str) -> None:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise WarehouseBusyError(
                        f"Another load of {schema} did not end within {self._wait_seconds:g} s;"
                        " the next load goes on from there."
                    ) from None
                time.sleep(_LOCK_POLL_SECONDS)
            else:
                return
