"""Warehouses: each keeps the tables of an integration and merges batches into them."""

from typing import TYPE_CHECKING

from customerio_pipeline.loading.target import Reader, Target
from customerio_pipeline.settings import Settings

if TYPE_CHECKING:
    from customerio_pipeline.warehouse.postgres_target import PostgresTarget


def open_warehouse(settings: Settings) -> Target:
    """Return the warehouse that the settings name; nothing is opened or created yet.

    Raises:
        WarehouseUnavailableError: its URL is malformed.
    """
    if settings.warehouse_kind == "postgres":
        return _postgres(settings)
    from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget

    return DuckDBTarget.from_url(
        settings.warehouse,
        wait_seconds=settings.warehouse_wait_seconds,
        publish_seconds=settings.duckdb_publish_seconds,
    )


def open_for_reading(settings: Settings) -> Reader:
    """Return the warehouse for those who may be shown a copy of it while it is held."""
    if settings.warehouse_kind == "postgres":
        return _postgres(settings)
    from customerio_pipeline.warehouse.duckdb_file import file_of
    from customerio_pipeline.warehouse.duckdb_reader import DuckDBReader

    return DuckDBReader(file_of(settings.warehouse), wait_seconds=settings.warehouse_wait_seconds)


def _postgres(settings: Settings) -> "PostgresTarget":
    from customerio_pipeline.warehouse.postgres_target import PostgresTarget

    return PostgresTarget(settings.warehouse, wait_seconds=settings.warehouse_wait_seconds)
