"""What is wrong now, as Dagster knows it: failed runs, failed checks, data that is not fresh."""

from collections.abc import Iterable, Iterator

import dagster as dg

from customerio_pipeline.alerting.message import Trouble

_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_FAILURES = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
_LONGEST_TEXT = 600
_LOOKED_AT = 20
_FRESHNESS_TITLES = {
    "WARN": "nothing was loaded into {} for long",
    "FAIL": "nothing was loaded into {} for very long",
}


def troubles(
    instance: dg.DagsterInstance,
    jobs: Iterable[str],
    checks: Iterable[dg.AssetCheckKey],
    assets: Iterable[dg.AssetKey],
    ui: str,
) -> list[Trouble]:
    """Return what is wrong now.

    Args:
        instance: of Dagster.
        jobs: whose last run should not have failed.
        checks: whose last result should be that they passed.
        assets: that should be fresh.
        ui: address of Dagster's web UI.
    """
    return [
        *_failed_runs(instance, jobs, ui),
        *_failed_checks(instance, checks, ui),
        *_stale_assets(instance, list(assets), ui),
    ]


def _failed_runs(instance: dg.DagsterInstance, jobs: Iterable[str], ui: str) -> Iterator[Trouble]:
    for job in jobs:
        runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_ENDED), limit=1)
        for run in runs:
            if run.status is dg.DagsterRunStatus.FAILURE:
                text = _reason(instance, run.run_id)
                yield Trouble(f"run:{job}", f"{job} failed", text, f"{ui}/runs/{run.run_id}")


def _reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the sentence that a run failed with; never a traceback, which may quote values."""
    for entry in instance.all_logs(run_id, of_type=_FAILURES):
        event = entry.dagster_event
        if event is None or not event.is_step_failure:
            continue
        failure = event.step_failure_data.user_failure_data
        if failure is not None and failure.description:
            return failure.description[:_LONGEST_TEXT]
    return "Its log in Dagster says why."


def _failed_checks(
    instance: dg.DagsterInstance, checks: Iterable[dg.AssetCheckKey], ui: str
) -> Iterator[Trouble]:
    for key in checks:
        found = _latest(instance, key)
        if found is not None and not found.passed:
            path = key.asset_key.to_user_string()
            kind = "fails" if found.severity is dg.AssetCheckSeverity.ERROR else "warns"
            yield Trouble(
                f"check:{path}/{key.name}",
                f"the check {key.name} of {path} {kind}",
                (found.description or "")[:_LONGEST_TEXT],
                f"{ui}/assets/{path}?view=checks",
            )


def _latest(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """Return how a check came out the last time; it may be planned by a run, or by a killed one."""
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=_LOOKED_AT)
    for record in history:
        event = record.event.dagster_event if record.event else None
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            return event.asset_check_evaluation_data
    return None


def _stale_assets(
    instance: dg.DagsterInstance, assets: list[dg.AssetKey], ui: str
) -> Iterator[Trouble]:
    for key, record in instance.get_freshness_state_records(assets).items():
        title = _FRESHNESS_TITLES.get(record.freshness_state.value)
        if title is not None:
            path = key.to_user_string()
            yield Trouble(
                f"freshness:{path}/{record.freshness_state.value}",
                title.format(path),
                "Its freshness policy says so: is Customer.io's webhook still enabled?",
                f"{ui}/assets/{path}",
            )
