"""Warehouses: each keeps the tables of an integration and merges batches into them."""

from customerio_pipeline.loading.target import Target
from customerio_pipeline.settings import Settings


def open_warehouse(settings: Settings) -> Target:
    """Return the warehouse that the settings name; nothing is opened or created yet."""
    from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget

    return DuckDBTarget.from_url(settings.warehouse, wait_seconds=settings.warehouse_wait_seconds)
