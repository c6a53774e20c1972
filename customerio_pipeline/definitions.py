"""Dagster's entry point: what every integration of the registry is made of.

Built anew whenever the code location is loaded, so a new integration needs a reload and no
restart (docs/dagster.md).
"""

import dagster as dg

from customerio_pipeline.orchestration.alerts_sensor import alerts_sensor
from customerio_pipeline.orchestration.assets import landing_asset, table_assets, view_assets
from customerio_pipeline.orchestration.checks import table_checks
from customerio_pipeline.orchestration.hourly_checks import hourly_checks, hourly_run
from customerio_pipeline.orchestration.integrations import known_integrations
from customerio_pipeline.orchestration.keys import SCHEMA_TAG, load_job_name
from customerio_pipeline.orchestration.landing_upkeep import (
    landing_upkeep_job,
    landing_upkeep_schedule,
)
from customerio_pipeline.orchestration.post_load_sensor import post_load_sensor
from customerio_pipeline.orchestration.prune_runs import prune_runs_job, prune_runs_schedule
from customerio_pipeline.orchestration.returned import erase_returned_job, erase_returned_sensor
from customerio_pipeline.orchestration.sensor import load_sensor
from customerio_pipeline.registry.records import Integration
from customerio_pipeline.settings import Settings, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions from the registry as it is now."""
    settings = load_settings()
    integrations = known_integrations(settings)
    maintenance = dg.Definitions(
        jobs=[landing_upkeep_job, prune_runs_job, erase_returned_job],
        schedules=[landing_upkeep_schedule, prune_runs_schedule],
        sensors=[
            alerts_sensor(settings, [each.schema for each in integrations]),
            erase_returned_sensor(settings, [each.schema for each in integrations]),
        ],
        # A process per step would take longer to start than most loads take.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(
        maintenance,
        hourly_run([each.schema for each in integrations]),
        *(integration_definitions(settings, each) for each in integrations),
    )


def integration_definitions(settings: Settings, integration: Integration) -> dg.Definitions:
    """Build the assets, checks, job and sensor of one integration."""
    schema = integration.schema
    landing = landing_asset(settings, integration)
    tables = table_assets(settings, integration)
    checks = table_checks(settings, schema)
    hourly = hourly_checks(settings, schema)
    post_load = post_load_sensor(settings, integration)
    job = dg.define_asset_job(
        load_job_name(schema),
        selection=dg.AssetSelection.assets(tables) - dg.AssetSelection.checks(hourly),
        description=f"Loads “{integration.name}” and checks it.",
        tags={SCHEMA_TAG: schema},
        executor_def=dg.in_process_executor,
    )
    return dg.Definitions(
        assets=[landing, tables, *view_assets(settings, integration)],
        asset_checks=[*checks, hourly],
        jobs=[job],
        sensors=[load_sensor(settings, schema), *([post_load] if post_load else [])],
    )
