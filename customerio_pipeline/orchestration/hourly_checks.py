"""Asset checks that Dagster makes every hour: conservation, and what is unlike the days before.

They read what loads committed and what landing holds, and keep no load waiting. Together they are
one step of one run, so an installation with many integrations starts one process an hour.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.loading.target import Reader
from customerio_pipeline.orchestration.integrations import known_integrations
from customerio_pipeline.orchestration.keys import data_key
from customerio_pipeline.orchestration.metadata import markdown_table
from customerio_pipeline.registry.records import IntegrationState
from customerio_pipeline.settings import Settings
from customerio_pipeline.verifying.conservation import account
from customerio_pipeline.verifying.unusual import (
    Finding,
    clocks_agree,
    documented_metrics,
    known_columns,
    loaded_soon,
    not_silent,
    sent_before_opened,
)
from customerio_pipeline.warehouse import open_for_reading

_JOB = "hourly_checks_job"
_SHOWN_GAPS = 20
_CELL_WIDTH = 120

NOTHING_MISSING = "nothing_missing"
_LOADED_SOON = "loaded_soon"
_WATCHES: dict[str, tuple[Callable[..., Finding], str]] = {
    _LOADED_SOON: (
        loaded_soon,
        (
            "19 of 20 loads of the last day had their oldest event within"
            " CUSTOMERIO_LAG_WARN_SECONDS of its receipt."
        ),
    ),
    "not_silent": (
        not_silent,
        "The newest event is not older than three times the usual longest pause of a day.",
    ),
    "known_columns": (
        known_columns,
        "No undocumented column, and none split by type, was added in the last day.",
    ),
    "documented_metrics": (
        documented_metrics,
        "Every metric of the last day's events is among those that Customer.io documents.",
    ),
    "sent_before_opened": (
        sent_before_opened,
        "Deliveries that were delivered, opened or clicked in the last day were sent before.",
    ),
    "clocks_agree": (
        clocks_agree,
        "The last day's events happened before they were received, and not weeks before.",
    ),
}


def hourly_checks(settings: Settings, schema: str) -> dg.AssetChecksDefinition:
    """Build the checks of one integration."""
    key = data_key(schema)

    @dg.multi_asset_check(
        name=f"{schema}_hourly_checks",
        specs=[
            dg.AssetCheckSpec(
                NOTHING_MISSING,
                asset=key,
                description=(
                    "Acknowledged = landed + in the spool, landed = loaded + held + waiting, and"
                    " events = rows + duplicates + rejected: what `customerio-pipeline verify`"
                    " proves."
                ),
            ),
            *(
                dg.AssetCheckSpec(name, asset=key, description=description)
                for name, (_, description) in _WATCHES.items()
            ),
        ],
        can_subset=True,
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        wanted = {each.name for each in context.selected_asset_check_keys}
        try:
            with closing(open_for_reading(settings)) as reader:
                yield from _results(settings, reader, schema, wanted)
        except PipelineError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None

    return check


def hourly_run(schemas: Sequence[str]) -> dg.Definitions:
    """Build the job and the schedule that make the checks of all integrations, if there are any."""
    if not schemas:
        return dg.Definitions()
    checks = [
        dg.AssetCheckKey(data_key(schema), name)
        for schema in schemas
        for name in (NOTHING_MISSING, *_WATCHES)
    ]
    job = dg.define_asset_job(
        _JOB,
        selection=dg.AssetSelection.checks(*checks),
        description="Proves that nothing is missing, and looks for what is unlike other days.",
        executor_def=dg.in_process_executor,
    )
    schedule = dg.ScheduleDefinition(
        name="hourly_checks_schedule",
        job=job,
        cron_schedule="40 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Checks every integration once an hour.",
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])


def _results(
    settings: Settings, reader: Reader, schema: str, wanted: Iterable[str]
) -> Iterator[dg.AssetCheckResult]:
    if NOTHING_MISSING in wanted:
        yield _nothing_missing(settings, reader, schema)
    if not reader.state(schema).table_columns:
        watch: Callable[..., Finding] = _nothing_loaded
    elif _is_paused(settings, schema):
        watch = _paused
    else:
        watch = partial(_watch, settings)
    now = datetime.now(UTC)
    for name in _WATCHES:
        if name in wanted:
            found = watch(name, reader, schema, now)
            yield dg.AssetCheckResult(
                asset_key=data_key(schema),
                check_name=name,
                passed=found.is_usual,
                severity=(
                    dg.AssetCheckSeverity.ERROR if found.is_grave else dg.AssetCheckSeverity.WARN
                ),
                description=found.sentence,
                metadata=_metadata(found),
            )


def _nothing_missing(settings: Settings, reader: Reader, schema: str) -> dg.AssetCheckResult:
    found = account(reader, settings.landing, settings.spool, schema)
    shown = [gap.what for gap in found.gaps[:_SHOWN_GAPS]]
    if len(found.gaps) > len(shown):
        shown.append(f"{len(found.gaps) - len(shown):,} more: `customerio-pipeline verify`.")
    return dg.AssetCheckResult(
        asset_key=data_key(schema),
        check_name=NOTHING_MISSING,
        passed=found.is_complete,
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join(shown)
        or (
            f"{found.acknowledged:,} acknowledged = {found.landed:,} landed"
            f" + {found.spooled:,} in the spool; {found.landed:,} landed = {found.loaded:,} loaded"
            f" + {found.held:,} held + {found.waiting:,} waiting."
        ),
        metadata={
            "acknowledged": found.acknowledged,
            "in_spool": found.spooled,
            "landed": found.landed,
            "loaded": found.loaded,
            "held": found.held,
            "waiting": found.waiting,
            "expired": found.expired,
            "rows": found.totals.rows,
            "duplicates": found.totals.duplicates,
            "rejected": found.totals.rejected_rows,
            "gaps": dg.MetadataValue.md("\n".join(f"- {gap}" for gap in shown)),
        },
    )


def _watch(settings: Settings, name: str, reader: Reader, schema: str, now: datetime) -> Finding:
    watch, _ = _WATCHES[name]
    if name == _LOADED_SOON:
        watch = partial(
            watch, warn_seconds=settings.lag_warn_seconds, fail_seconds=settings.lag_fail_seconds
        )
    return watch(reader, schema, now)


def _nothing_loaded(*_: object) -> Finding:
    return Finding(True, "Nothing is loaded yet.")


def _paused(*_: object) -> Finding:
    return Finding(True, "The integration is paused.")


def _is_paused(settings: Settings, schema: str) -> bool:
    return any(
        each.schema == schema and each.state is IntegrationState.PAUSED
        for each in known_integrations(settings)
    )


def _metadata(found: Finding) -> dict[str, dg.MetadataValue | int | float]:
    metadata: dict[str, dg.MetadataValue | int | float] = dict(found.numbers)
    if found.rows:
        table = markdown_table(found.columns, found.rows, _CELL_WIDTH)
        metadata["found"] = dg.MetadataValue.md(table)
    return metadata
