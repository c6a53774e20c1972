"""The sensor of an integration: reports landing files and requests the run that loads them."""

import time
from collections.abc import Mapping
from contextlib import closing

import dagster as dg

from customerio_pipeline.errors import WarehouseDamagedError, WarehouseError
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.orchestration.drain_run import DrainConfig
from customerio_pipeline.orchestration.integrations import NotLoadingError, check_is_loading
from customerio_pipeline.orchestration.keys import (
    SCHEMA_TAG,
    landing_key,
    load_job_name,
    load_op_name,
)
from customerio_pipeline.orchestration.sensor_plan import (
    NOTHING_NEW,
    Cursor,
    LandedFiles,
    is_settled,
    plan_reports,
    plan_run,
)
from customerio_pipeline.settings import Settings
from customerio_pipeline.warehouse import open_warehouse

# Dagster's loop wakes every 5 s. 1 to 4 tick each time, 5 every other time.
_INTERVAL_SECONDS = 2

# A tick has 60 s, and one that waits keeps the other sensors' threads from working.
_WAREHOUSE_WAIT_SECONDS = 1.0

# A drain run reports what it loads twice a minute. When it does not, it waits for new files or for
# the warehouse, or it is in a transaction, or its process is gone.
_LONGEST_TRANSACTION_SECONDS = 60.0

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def load_sensor(settings: Settings, schema: str) -> dg.SensorDefinition:
    """Build the sensor of one integration."""
    listing = LandingListing(settings.landing, schema)
    releases = Releases(settings.landing, schema)
    wait_seconds = min(settings.warehouse_wait_seconds, _WAREHOUSE_WAIT_SECONDS)
    quick = settings.model_copy(update={"warehouse_wait_seconds": wait_seconds})

    @dg.sensor(
        name=f"{schema}_sensor",
        job_name=load_job_name(schema),
        description=(
            f"Looks every 5 s for deliveries to {schema} that are landed and not loaded, and has"
            " them loaded."
        ),
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        now = time.time()
        with kept_still(settings.landing, schema):
            files = listing.files()
            cursor, landed = plan_reports(Cursor.from_text(context.cursor), files, now)
            events = [_materialization(settings, schema, part) for part in landed]
        released = releases.offsets()
        reason = _reason_to_wait(context.instance, settings, schema)
        if reason is None and is_settled(cursor, files, now, released):
            reason = NOTHING_NEW
        if reason is not None:
            return dg.SensorResult(skip_reason=reason, asset_events=events, cursor=cursor.to_text())
        decision = plan_run(cursor, files, _settled(quick, schema, released), now, released)
        text = decision.cursor.to_text()
        if decision.run_key is None:
            return dg.SensorResult(skip_reason=decision.reason, asset_events=events, cursor=text)
        request = _run_request(settings, schema, decision.run_key)
        return dg.SensorResult(run_requests=[request], asset_events=events, cursor=text)

    return sensor


def _run_request(settings: Settings, schema: str, run_key: str) -> dg.RunRequest:
    config = DrainConfig(
        idle_seconds=settings.load_idle_seconds, max_seconds=settings.load_max_seconds
    )
    return dg.RunRequest(
        run_key=run_key, run_config=dg.RunConfig(ops={load_op_name(schema): config})
    )


def _reason_to_wait(instance: dg.DagsterInstance, settings: Settings, schema: str) -> str | None:
    try:
        check_is_loading(settings, schema)
    except NotLoadingError as error:
        return str(error)
    records = instance.get_run_records(
        dg.RunsFilter(statuses=_UNFINISHED, tags={SCHEMA_TAG: schema})
    )
    for record in records:
        if not _fail_if_lost(instance, record, settings):
            return f"Run {record.dagster_run.run_id[:8]} is loading or about to."
    return None


def _fail_if_lost(instance: dg.DagsterInstance, record: dg.RunRecord, settings: Settings) -> bool:
    """Fail a run whose process is gone: nothing else would end it, and no other could start.

    Dagster notices when a run's process dies, unless the process that started it (the code
    server) died too, as in a power cut. Should the run live after all, its lock keeps the next
    one waiting.
    """
    run = record.dagster_run
    if run.status is not dg.DagsterRunStatus.STARTED or record.start_time is None:
        return False
    silence = (
        settings.load_idle_seconds + settings.warehouse_wait_seconds + _LONGEST_TRANSACTION_SECONDS
    )
    latest = time.time() - silence
    if record.start_time > latest:
        return False
    newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    if newest and newest[0].timestamp > latest:
        return False
    instance.report_run_failed(
        run, f"The process of this run is gone: there was no sign of life for {silence:.0f} s."
    )
    return True


def _settled(
    settings: Settings, schema: str, released: Mapping[str, OffsetSet]
) -> Mapping[str, OffsetSet] | None:
    try:
        with closing(open_warehouse(settings)) as target:
            return target.state(schema).settled(released)
    except WarehouseDamagedError:
        return {}  # a run makes it again from landing
    except WarehouseError:
        return None


def _materialization(
    settings: Settings, schema: str, landed: LandedFiles
) -> dg.AssetMaterialization:
    size = sum(file.path(settings.landing).stat().st_size for file in landed.files)
    return dg.AssetMaterialization(
        landing_key(schema),
        partition=landed.day.isoformat(),
        metadata={
            "files": len(landed.files),
            "deliveries": landed.deliveries,
            "bytes": size,
            "last_offsets": dg.MetadataValue.json(landed.last_offsets),
        },
    )
