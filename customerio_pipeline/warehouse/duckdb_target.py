"""DuckDB as the warehouse: one file, opened only while a batch is merged or read."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from customerio_pipeline.errors import (
    WarehouseDamagedError,
    WarehouseError,
    WarehouseReplacedError,
    WarehouseUnavailableError,
)
from customerio_pipeline.loading.target import (
    Batch,
    MergeCounts,
    QueryResult,
    Removal,
    RemovalCounts,
    SchemaState,
)
from customerio_pipeline.warehouse import duckdb_copy, duckdb_merge, duckdb_rebuild
from customerio_pipeline.warehouse.duckdb_damage import replace_if_damaged, suspected_inode
from customerio_pipeline.warehouse.duckdb_errors import is_damage, reason
from customerio_pipeline.warehouse.duckdb_file import (
    ENGINE_CONFIG,
    attached,
    create,
    damaged,
    error_of_use,
    file_of,
    locked,
    unavailable,
)
from customerio_pipeline.warehouse.duckdb_query import run_query
from customerio_pipeline.warehouse.duckdb_reader import read_file
from customerio_pipeline.warehouse.duckdb_removal import remove
from customerio_pipeline.warehouse.duckdb_state import read_state
from customerio_pipeline.warehouse.duckdb_views import DuckDBViews

# One thread writes rows in whole groups. Several cut them up, for a tenth more processor time,
# and the other core stages the next batch anyway.
_LOAD_CONFIG = ENGINE_CONFIG | {"threads": 1}

_Result = TypeVar("_Result")


class DuckDBTarget:
    """A `Target` in one DuckDB file.

    The in-memory engine stays warm between batches; the file is attached for each and detached
    after it, so that other processes get in between.
    """

    def __init__(self, file: Path, *, wait_seconds: float, publish_seconds: float = 0) -> None:
        """Prepare to load into `file`, with a read copy at most every `publish_seconds`."""
        self._file = file
        self._wait_seconds = wait_seconds
        self._publish_seconds = publish_seconds
        self._connection = duckdb.connect(config=_LOAD_CONFIG)
        self._inode: int | None = None
        self._may_repair = False
        self._has_repaired = False
        self._views = DuckDBViews()

    @classmethod
    def from_url(
        cls, url: str, *, wait_seconds: float, publish_seconds: float = 0
    ) -> "DuckDBTarget":
        """Return the target of ``duckdb:///path``."""
        return cls(file_of(url), wait_seconds=wait_seconds, publish_seconds=publish_seconds)

    @contextmanager
    def exclusive(self, schema: str) -> Iterator[None]:
        """Hold the load lock of `schema`: a lock file beside the warehouse, freed by the kernel."""
        complaint = (
            f"Another load of {schema} did not end within {self._wait_seconds:g} s; the next load"
            " goes on from there."
        )
        lock_file = self._file.with_name(f".{self._file.name}.{schema}.lock")
        with ExitStack() as stack:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(lock_file, self._wait_seconds, complaint))
            except OSError as error:
                raise unavailable(self._file, error) from error
            self._may_repair = True
            stack.callback(setattr, self, "_may_repair", False)
            yield

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when the file or the schema is not there yet.

        Under the load lock a damaged file is set aside, and then the schema holds nothing.
        """
        self._heed_suspicion()
        try:
            return self._state(schema)
        except WarehouseDamagedError as error:
            if not self._may_repair:
                raise
            self._repair(error)
            return self._state(schema)

    def merge(self, schema: str, batch: Batch) -> MergeCounts:
        """Apply the batch in one transaction (design C4)."""
        known, self._inode = self._inode, None
        create(self._file, self._wait_seconds)
        try:
            with self._attached(read_only=False):
                if known not in (None, self._inode):
                    raise WarehouseReplacedError(
                        f"The warehouse {self._file} was replaced while a batch was prepared."
                    )
                return self._merge(schema, batch)
        except WarehouseDamagedError as error:
            self._repair(error)
            raise WarehouseReplacedError(
                f"The warehouse {self._file} was damaged; the next load makes it again."
            ) from error

    def remove(self, schema: str, removal: Removal) -> RemovalCounts:
        """Remove rows in one transaction (`duckdb_removal`)."""
        return self._change(
            schema, "an erasure", lambda connection: remove(connection, schema, removal)
        )

    def prepare_rebuild(self, schema: str, beside: str) -> None:
        """Make `beside` anew, without rows (`duckdb_rebuild`)."""
        self._change(
            schema,
            "a rebuild",
            lambda connection: duckdb_rebuild.prepare(connection, schema, beside),
        )

    def finish_rebuild(self, schema: str, beside: str) -> None:
        """Let what `beside` holds take the place of what `schema` holds (`duckdb_rebuild`)."""
        self._change(
            schema,
            "a rebuild",
            lambda connection: duckdb_rebuild.finish(connection, schema, beside, self._views),
        )

    def drop(self, schema: str) -> None:
        """Drop a schema and all that is in it, if it is there."""
        self._change(
            schema, "a rebuild", lambda connection: duckdb_rebuild.drop(connection, schema)
        )

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement with the file opened for just that."""
        return read_file(
            self._file,
            lambda file, seconds: run_query(file, sql, parameters, seconds),
            self._wait_seconds,
        )

    def publish(self, *, force: bool = False) -> None:
        """Make the read copy where it is due; with `force` also a short time after the last."""
        duckdb_copy.publish(
            self._file, self._publish_seconds, force=force, wait_seconds=self._wait_seconds
        )

    def close(self) -> None:
        """Close the in-memory engine."""
        self._connection.close()

    def _state(self, schema: str) -> SchemaState:
        self._inode = None
        if not self._file.exists():
            return SchemaState({}, (), {})
        try:
            with self._attached(read_only=True):
                return read_state(self._connection, schema)
        except duckdb.Error as error:
            raise error_of_use(self._file, error) from error

    def _merge(self, schema: str, batch: Batch) -> MergeCounts:
        try:
            return duckdb_merge.merge(self._connection, schema, batch, self._views)
        except duckdb.Error as error:
            if is_damage(error):
                raise damaged(self._file, error) from error
            raise WarehouseError(
                f"The warehouse {self._file} refused a load of {schema}: {reason(error)};"
                " nothing was changed."
            ) from error

    def _change(
        self, schema: str, what: str, change: Callable[[duckdb.DuckDBPyConnection], _Result]
    ) -> _Result:
        create(self._file, self._wait_seconds)
        with self._attached(read_only=False):
            try:
                return change(self._connection)
            except duckdb.Error as error:
                if is_damage(error):
                    raise damaged(self._file, error) from error
                raise WarehouseError(
                    f"The warehouse {self._file} refused {what} of {schema}: {reason(error)};"
                    " nothing was changed."
                ) from error

    @contextmanager
    def _attached(self, *, read_only: bool) -> Iterator[None]:
        self._inode = self._file.stat().st_ino
        try:
            with attached(
                self._connection, self._file, read_only=read_only, wait_seconds=self._wait_seconds
            ):
                yield
        except (duckdb.Error, WarehouseError):
            # After an internal error an engine takes no more statements, not even a DETACH.
            self._connection.close()
            self._connection = duckdb.connect(config=_LOAD_CONFIG)
            raise

    def _heed_suspicion(self) -> None:
        """See whether a reader met damage that a load did not.

        Raises:
            WarehouseDamagedError: it did, and this is no load.
        """
        inode = suspected_inode(self._file)
        if inode is None:
            return
        if not self._may_repair:
            raise WarehouseDamagedError(
                f"A reader found the warehouse {self._file} damaged; the next load looks at it and,"
                " if it is, makes it again from landing."
            )
        replace_if_damaged(self._file, inode, None, self._wait_seconds)

    def _repair(self, error: WarehouseDamagedError) -> None:
        """Set the damaged file aside, once.

        Raises:
            WarehouseUnavailableError: it is damaged again.
            WarehouseDamagedError: it is not damaged for all that can be seen.
        """
        cause = error.__cause__ if isinstance(error.__cause__, duckdb.Error) else error
        if self._has_repaired:
            raise WarehouseUnavailableError(
                f"The warehouse {self._file} is damaged again right after it was made anew"
                f" ({reason(cause)}): look at the disk."
            ) from error
        if self._inode is None or not replace_if_damaged(
            self._file, self._inode, cause, self._wait_seconds
        ):
            raise error
        self._has_repaired = True
