"""What comes back of what was erased leaves landing again: at once, not only every hour."""

import time
from collections.abc import Iterable

import dagster as dg

from customerio_pipeline.errors import LandingError, PipelineError
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.orchestration.integrations import known_integrations
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.verifying.erasing import erase_returned

# It ticks every 15 s then (Dagster's loop wakes every 5 s).
_INTERVAL_SECONDS = 10

_GIVE_UP_NS = 600 * 1_000_000_000
"""What cannot be removed for so long is for the hourly job, which fails with the reason."""

_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.op(
    description=(
        "Of every integration: take out of landing what loads met, and left out, of what was"
        " erased."
    )
)
def take_returned_out(context: dg.OpExecutionContext) -> None:
    """Go through the integrations; who cannot be seen to now is seen to later."""
    settings = load_settings()
    try:
        integrations = known_integrations(settings)
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for integration in integrations:
        try:
            done = erase_returned(settings.landing, integration.schema)
        except LandingError as error:
            context.log.warning(str(error))
        else:
            if done is not None:
                context.log.info(done)


@dg.job(
    description="Takes out of landing what came back of what was erased.",
    executor_def=dg.in_process_executor,
)
def erase_returned_job() -> None:
    """Run the one step."""
    take_returned_out()


def erase_returned_sensor(settings: Settings, schemas: Iterable[str]) -> dg.SensorDefinition:
    """Build the sensor for all integrations."""
    erasures = [Erasures(settings.landing, schema) for schema in schemas]

    @dg.sensor(
        name="erase_returned_sensor",
        job=erase_returned_job,
        description="Has events taken out of landing that came back after they were erased.",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        since = time.time_ns() - _GIVE_UP_NS
        if not any(note.noted_ns >= since for each in erasures for note in each.returned()):
            return dg.SkipReason("Nothing came back.")
        filters = dg.RunsFilter(job_name=erase_returned_job.name, statuses=_UNFINISHED)
        if context.instance.get_runs(filters, limit=1):
            return dg.SkipReason("It is being taken out.")
        return dg.RunRequest()

    return sensor
