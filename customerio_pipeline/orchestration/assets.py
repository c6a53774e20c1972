"""The assets of an integration: landing, which the receiver writes, the two tables, the views."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from customerio_pipeline.orchestration.checks import offsets_check
from customerio_pipeline.orchestration.drain_run import DrainConfig, drain_run
from customerio_pipeline.orchestration.keys import (
    data_key,
    landing_key,
    load_op_name,
    rejected_key,
    view_key,
)
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.settings import Settings
from customerio_pipeline.warehouse.view_columns import VIEWS

_OWNERS = ["team:data"]

_LOADING_VERSION = "1"
"""To be raised when loading the same landing files again would give other rows."""


def landing_asset(settings: Settings, integration: Integration) -> dg.AssetSpec:
    """Describe the landing files; the sensor reports new ones."""
    schema = integration.schema
    return dg.AssetSpec(
        landing_key(schema),
        description=(
            f"Every delivery that Customer.io made to “{integration.name}”, byte for byte, in"
            " immutable Parquet files. Written by the receiver, never by Dagster; the tables"
            " can be rebuilt from it."
        ),
        group_name=schema,
        kinds={"parquet", "customerio"},
        owners=_OWNERS,
        metadata={
            "dagster/uri": f"file://{settings.landing}/integration={schema}",
            "integration": integration.name,
        },
        # Files lie in the day of their sealing, in UTC; today counts.
        partitions_def=dg.DailyPartitionsDefinition(
            start_date=integration.created_at.strftime("%Y-%m-%d"), end_offset=1
        ),
    )


def table_assets(settings: Settings, integration: Integration) -> dg.AssetsDefinition:
    """Build `data` and `_sdc_rejected`, loaded together in one transaction (design C4)."""
    schema = integration.schema

    @dg.multi_asset(
        name=load_op_name(schema),
        description="Load new landing files: parse, flatten, evolve the table, merge.",
        specs=[_data_spec(settings, integration), _rejected_spec(settings, integration)],
        check_specs=[offsets_check(schema)],
        can_subset=True,
    )
    def load(
        context: dg.AssetExecutionContext, config: DrainConfig
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        yield from drain_run(context, settings, schema, config)

    return load


def view_assets(settings: Settings, integration: Integration) -> list[dg.AssetSpec]:
    """Describe the views over `data`; the load that changes the table keeps them up to date."""
    schema = integration.schema
    return [
        dg.AssetSpec(
            view_key(schema, view),
            deps=[data_key(schema)],
            description=description,
            group_name=schema,
            kinds={settings.warehouse_kind, "view"},
            owners=_OWNERS,
            metadata={
                "dagster/table_name": f"{schema}.{view}",
                "dagster/storage_kind": settings.warehouse_kind,
                "dagster/column_schema": dg.TableSchema(
                    columns=[
                        dg.TableColumn(column.name, column.type, description=column.description)
                        for column in columns
                    ]
                ),
            },
        )
        for view, (description, columns) in VIEWS.items()
    ]


def _data_spec(settings: Settings, integration: Integration) -> dg.AssetSpec:
    return _table_spec(
        settings,
        data_key(integration.schema),
        f"Events of “{integration.name}”: one row per event_id, the latest wins, columns"
        " flattened with “__”.",
        # Dagster looks at the last materialization only, and what is loaded is loaded soon.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(seconds=settings.freshness_warn_seconds),
            fail_window=timedelta(seconds=settings.freshness_fail_seconds),
        ),
    )


def _rejected_spec(settings: Settings, integration: Integration) -> dg.AssetSpec:
    return _table_spec(
        settings,
        rejected_key(integration.schema),
        f"What “{integration.name}” received that cannot be a row of data, with the reason.",
    )


def _table_spec(
    settings: Settings,
    key: dg.AssetKey,
    description: str,
    freshness_policy: dg.FreshnessPolicy | None = None,
) -> dg.AssetSpec:
    schema, table = key.path
    return dg.AssetSpec(
        key,
        deps=[landing_key(schema)],
        description=description,
        group_name=schema,
        kinds={settings.warehouse_kind, "table"},
        owners=_OWNERS,
        code_version=_LOADING_VERSION,
        metadata={
            "dagster/table_name": f"{schema}.{table}",
            "dagster/storage_kind": settings.warehouse_kind,
        },
        freshness_policy=freshness_policy,
    )
