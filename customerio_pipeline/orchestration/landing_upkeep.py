"""Keeping landing small, every hour: files of hours that are over are joined."""

import dagster as dg

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.landing.compaction import compact
from customerio_pipeline.orchestration.integrations import known_integrations
from customerio_pipeline.settings import load_settings


@dg.op(description="Join the small landing files of hours that are over, of every integration.")
def compact_landing(context: dg.OpExecutionContext) -> None:
    """Go through the integrations; a problem of one keeps no other back."""
    settings = load_settings()
    problems: list[PipelineError] = []
    for integration in known_integrations(settings):
        try:
            found = compact(settings.landing, integration.schema)
        except PipelineError as error:
            problems.append(error)
            continue
        context.log.info(found.sentence)
        problems += found.problems
    if problems:
        raise dg.Failure(description=" ".join(map(str, problems)), allow_retries=False)


@dg.job(
    description="Keeps landing small: few files instead of many.",
    executor_def=dg.in_process_executor,
)
def landing_upkeep_job() -> None:
    """Run the one step."""
    compact_landing()


@dg.schedule(
    job=landing_upkeep_job,
    # Past the ten minutes that compaction leaves an hour alone.
    cron_schedule="20 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Joins the landing files of the hour before.",
)
def landing_upkeep_schedule() -> dg.RunRequest:
    """Ask for one run an hour."""
    return dg.RunRequest()
