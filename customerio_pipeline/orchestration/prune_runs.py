"""Deleting old runs: Dagster keeps each for ever, at 132 KB and a file of its own on SQLite."""

from datetime import UTC, datetime, timedelta

import dagster as dg

# The longer a run is of interest, the longer it stays.
_KEEP = {
    dg.DagsterRunStatus.SUCCESS: timedelta(days=7),
    dg.DagsterRunStatus.FAILURE: timedelta(days=30),
    dg.DagsterRunStatus.CANCELED: timedelta(days=30),
}
_PAGE = 100


@dg.op(description="Delete runs that succeeded more than 7 days ago, or failed more than 30.")
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """Delete page by page, so that memory stays small."""
    now = datetime.now(UTC)
    deleted = sum(
        prune_runs(context.instance, status, now - kept) for status, kept in _KEEP.items()
    )
    context.log.info("Deleted %s runs.", deleted)


@dg.job(description="Keeps Dagster's own storage small.", executor_def=dg.in_process_executor)
def prune_runs_job() -> None:
    """Run the one step."""
    delete_old_runs()


@dg.schedule(
    job=prune_runs_job,
    cron_schedule="17 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletes old runs every night.",
)
def prune_runs_schedule() -> dg.RunRequest:
    """Ask for one run a night."""
    return dg.RunRequest()


def prune_runs(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, before: datetime) -> int:
    """Delete runs of `status` created `before`; return how many.

    Each asset's newest materialization stays: it is what the asset's page shows.
    """
    kept = {
        event.run_id
        for key in instance.get_asset_keys()
        if (event := instance.get_latest_materialization_event(key)) is not None
    }
    filters = dg.RunsFilter(statuses=[status], created_before=before)
    deleted = 0
    while old := [
        run.run_id
        for run in instance.get_runs(filters, limit=_PAGE + len(kept))
        if run.run_id not in kept
    ]:
        for run_id in old:
            instance.compute_log_manager.delete_logs(prefix=[run_id])
            instance.delete_run(run_id)
        deleted += len(old)
    return deleted
