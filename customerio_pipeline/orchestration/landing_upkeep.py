"""Keeping landing in order, every hour: erasures finished, files joined, old days removed."""

from collections.abc import Callable
from contextlib import closing

import dagster as dg

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.landing.compaction import compact
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.orchestration.integrations import known_integrations
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.verifying.erasing import finish_erasures
from customerio_pipeline.verifying.expiring import expire_loaded
from customerio_pipeline.warehouse import open_warehouse


@dg.op(
    description=(
        "Of every integration: erase what came back of what was erased; join small landing files"
        " of hours that are over; remove days older than CUSTOMERIO_LANDING_RETENTION_DAYS that are"
        " loaded, where it is set."
    )
)
def keep_landing_small(context: dg.OpExecutionContext) -> None:
    """Go through the integrations; a problem of one keeps no other back."""
    settings = load_settings()
    problems: list[str] = []
    try:
        integrations = known_integrations(settings)
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None
    for integration in integrations:
        for step in (_erase, _compact, _expire):
            try:
                problems += step(settings, integration.schema, context.log.info)
            except PipelineError as error:
                problems.append(str(error))
    if problems:
        raise dg.Failure(description=" ".join(problems), allow_retries=False)


def _erase(settings: Settings, schema: str, say: Callable[[str], None]) -> list[str]:
    if not Erasures(settings.landing, schema).read():
        return []  # the warehouse need not be there
    with closing(open_warehouse(settings)) as target:
        done = finish_erasures(target, settings.landing, schema)
    say(done or "")
    return []


def _compact(settings: Settings, schema: str, say: Callable[[str], None]) -> list[str]:
    found = compact(settings.landing, schema)
    say(found.sentence)
    return list(map(str, found.problems))


def _expire(settings: Settings, schema: str, say: Callable[[str], None]) -> list[str]:
    days = settings.landing_retention_days
    if days is None:
        return []
    with closing(open_warehouse(settings)) as target:
        found = expire_loaded(target, settings.landing, schema, days=days)
    for sentence in (found.sentence, *found.kept):
        say(sentence)
    return []


@dg.job(
    description="Keeps landing small: few files instead of many, and no older ones than wanted.",
    executor_def=dg.in_process_executor,
)
def landing_upkeep_job() -> None:
    """Run the one step."""
    keep_landing_small()


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
