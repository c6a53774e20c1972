"""Warehouses: each keeps the tables of an integration and merges batches into them."""

from customerio_pipeline.loading.target import Target
from customerio_pipeline.settings import Settings


def open_warehouse(settings: Settings) -> Target:
    """Return the warehouse that the settings name; nothing is opened or created yet.

    Raises:
        WarehouseUnavailableError: its URL is malformed.
    """
    if settings.warehouse_kind == "postgres":
        from customerio_pipeline.warehouse.postgres_target import PostgresTarget

        return PostgresTarget(settings.warehouse, wait_seconds=settings.warehouse_wait_seconds)
    from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget

    return DuckDBTarget.from_url(settings.warehouse, wait_seconds=settings.warehouse_wait_seconds)
