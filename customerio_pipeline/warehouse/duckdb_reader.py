"""Reading a DuckDB warehouse at any time: the file itself, or its read copy while it is held."""

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import duckdb

from customerio_pipeline.errors import (
    WarehouseBusyError,
    WarehouseDamagedError,
    WarehouseUnavailableError,
)
from customerio_pipeline.loading.target import QueryResult, SchemaState
from customerio_pipeline.warehouse.duckdb_copy import copied_at, copy_of
from customerio_pipeline.warehouse.duckdb_damage import note_suspicion
from customerio_pipeline.warehouse.duckdb_file import ENGINE_CONFIG, attached, error_of_use
from customerio_pipeline.warehouse.duckdb_query import run_query
from customerio_pipeline.warehouse.duckdb_state import read_state

_FILE_FIRST_SECONDS = 1.0
"""A batch takes less, and most are followed by a pause."""

_Read = TypeVar("_Read")


class WarehouseMissingError(WarehouseUnavailableError):
    """There is no file yet."""


class DuckDBReader:
    """A `Reader` of one DuckDB file.

    Once it had to turn to the read copy it stays there, so that one command tells one story.
    """

    def __init__(self, file: Path, *, wait_seconds: float) -> None:
        self._file = file
        self._wait_seconds = wait_seconds
        self._copied_at: datetime | None = None

    @property
    def copied_at(self) -> datetime | None:
        """When the copy was made that answers instead of the warehouse."""
        return self._copied_at

    def state(self, schema: str) -> SchemaState:
        """Read what the schema holds; empty when there is no such schema yet."""
        if not self._file.exists():
            return SchemaState({}, (), {})
        return self._read(lambda file, seconds: _read_state(file, schema, seconds))

    def query(self, sql: str, parameters: Sequence[object] = ()) -> QueryResult:
        """Run one read-only statement."""
        return self._read(lambda file, seconds: run_query(file, sql, parameters, seconds))

    def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, read: Callable[[Path, float], _Read]) -> _Read:
        if self._copied_at is None:
            made_at = copied_at(self._file)
            try:
                return read_file(self._file, read, self._file_seconds(has_copy=made_at is not None))
            except (WarehouseBusyError, WarehouseDamagedError, WarehouseMissingError):
                self._copied_at = made_at
                if made_at is None:
                    raise
        return self._read_copy(read)

    def _file_seconds(self, *, has_copy: bool) -> float:
        return min(self._wait_seconds, _FILE_FIRST_SECONDS) if has_copy else self._wait_seconds

    def _read_copy(self, read: Callable[[Path, float], _Read]) -> _Read:
        copy = copy_of(self._file)
        try:
            return read(copy, self._wait_seconds)
        except WarehouseDamagedError as error:
            with suppress(OSError):
                copy.unlink()
            raise WarehouseUnavailableError(
                f"The read copy {copy} is damaged and was removed; a load makes it again."
            ) from error


def read_file(file: Path, read: Callable[[Path, float], _Read], wait_seconds: float) -> _Read:
    """Read the warehouse itself; leave a note for the next load where it is damaged.

    Raises:
        WarehouseMissingError: nothing was loaded yet.
        WarehouseError: as `read`.
    """
    if not file.exists():
        raise WarehouseMissingError(
            f"The warehouse {file} does not exist yet; the first load creates it."
        )
    try:
        return read(file, wait_seconds)
    except WarehouseDamagedError:
        note_suspicion(file)
        raise


def _read_state(file: Path, schema: str, wait_seconds: float) -> SchemaState:
    with closing(duckdb.connect(config=ENGINE_CONFIG)) as engine:
        try:
            with attached(engine, file, read_only=True, wait_seconds=wait_seconds):
                return read_state(engine, schema)
        except duckdb.Error as error:
            raise error_of_use(file, error) from error
