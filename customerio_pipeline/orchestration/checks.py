"""Asset checks of an integration, part of each load."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from customerio_pipeline.errors import PipelineError
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.target import Target
from customerio_pipeline.orchestration.keys import data_key, rejected_key
from customerio_pipeline.orchestration.metadata import markdown_table
from customerio_pipeline.settings import Settings
from customerio_pipeline.verifying.rejected import KIND_OF_REASON
from customerio_pipeline.warehouse import open_warehouse

_REJECTED_SHARE = 0.01
"""Warned about above this; a healthy source has a malformed event in a thousand at most."""

_TIMES_USUAL = 3
"""A source with many of them all the time is warned about when they become this many times more,"""

_SMALL_SHARE = 0.001
"""and so is one with hardly any, above this."""

_REJECTED_WINDOW = timedelta(days=1)
_HISTORY = timedelta(days=28)
_LEAST_EVENTS = 10_000
"""Fewer than this in the weeks before say nothing of what is usual."""

_REASONS = 10

_PRIMARY_KEY = """
SELECT constraint_name FROM information_schema.table_constraints
JOIN information_schema.key_column_usage
USING (constraint_schema, constraint_name, table_schema, table_name)
WHERE table_schema = '{schema}' AND table_name = 'data' AND constraint_type = 'PRIMARY KEY'
GROUP BY constraint_name HAVING count(*) = 1 AND max(column_name) = 'event_id'"""
_REASON_WIDTH = 120
_SHOWN_PROBLEMS = 20

_FOOTERS = 200
"""Newest files whose footer is read at each check: a tenth of a second. Files never change, so
older ones were looked at when they were new."""


def offsets_check(schema: str) -> dg.AssetCheckSpec:
    """Describe the check that the load itself makes, so that it is made when the load fails too.

    It is about landing and belongs to `data`: Dagster forgets a result when its asset is
    materialized again, and new landing files are reported all the time.
    """
    return dg.AssetCheckSpec(
        "landed_offsets_gapless",
        asset=data_key(schema),
        description=(
            "Every writer's offsets are landed from 0 without a gap, and each of the newest"
            " landing files holds as many rows as its name promises: nothing acknowledged is"
            " missing."
        ),
    )


def table_checks(settings: Settings, schema: str) -> list[dg.AssetChecksDefinition]:
    """Build the checks that are made on the tables after a load."""

    @dg.asset_check(
        asset=data_key(schema),
        name="event_id_unique_and_not_null",
        description="Every row has an event_id and no two have the same.",
    )
    def event_id_check() -> dg.AssetCheckResult:
        return _on_tables(settings, schema, event_id_unique_and_not_null)

    @dg.asset_check(
        asset=rejected_key(schema),
        name="rejected_share",
        description=(
            "No more of the last day's events were rejected than three times the usual share of"
            f" four weeks; {_REJECTED_SHARE:.0%} as long as that is unknown."
        ),
    )
    def rejected_check() -> dg.AssetCheckResult:
        return _on_tables(settings, schema, rejected_share)

    @dg.asset_check(
        asset=data_key(schema),
        name="signatures_valid",
        description="No delivery is held because no signing key signed it.",
    )
    def signatures_check() -> dg.AssetCheckResult:
        return _on_tables(settings, schema, signatures_valid)

    return [event_id_check, rejected_check, signatures_check]


def event_id_unique_and_not_null(target: Target, schema: str) -> dg.AssetCheckResult:
    """Count rows, ids and different ids of `data`, unless the warehouse guarantees them."""
    if target.query(_PRIMARY_KEY.format(schema=schema)).rows:
        return dg.AssetCheckResult(passed=True, description="The table's primary key sees to it.")
    result = target.query(
        f'SELECT count(*), count(event_id), count(DISTINCT event_id) FROM "{schema}".data'  # noqa: S608  a checked name
    )
    rows, present, different = (int(str(value)) for value in result.rows[0])
    return dg.AssetCheckResult(
        passed=rows == present == different,
        severity=dg.AssetCheckSeverity.ERROR,
        description=(
            f"{rows} rows: {rows - present} without event_id, {present - different} repeated."
        ),
        metadata={"rows": rows, "missing": rows - present, "repeated": present - different},
    )


def signatures_valid(target: Target, schema: str) -> dg.AssetCheckResult:
    """Count what is held, by URL and verdict."""
    held = sum(map(len, target.state(schema).held.values()))
    if not held:
        return dg.AssetCheckResult(passed=True, description="Nothing is held.")
    result = target.query(
        "SELECT url_id, signature, count(*), min(_sdc_received_at), max(_sdc_received_at)"  # noqa: S608
        f' FROM "{schema}"._sdc_held'
        " GROUP BY url_id, signature ORDER BY count(*) DESC, url_id, signature LIMIT 10"
    )
    return dg.AssetCheckResult(
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{held} deliveries are landed and not loaded: no signing key signed them. Add the"
            " right key, then run `customerio-pipeline integrations reverify`."
        ),
        metadata={
            "held": held,
            "by_url": dg.MetadataValue.md(
                markdown_table(
                    ("URL id", "verdict", "deliveries", "first", "last"), result.rows, _REASON_WIDTH
                )
            ),
        },
    )


def landed_offsets_gapless(settings: Settings, schema: str) -> dg.AssetCheckResult:
    """Compare the names of landing files with each other, and the newest with their content."""
    with kept_still(settings.landing, schema):
        files = LandingListing(settings.landing, schema).files()
        newest = files[-_FOOTERS:]
        damage = [problem for file in newest if (problem := _footer_problem(settings, file))]
    offsets = landed_offsets(files, Expirations(settings.landing, schema).offsets())
    problems = [
        f"Writer {writer}: offsets {gap.first} to {gap.last} are missing."
        for writer, landed in offsets.items()
        for gap in landed.gaps()
    ]
    problems += damage
    shown = problems[:_SHOWN_PROBLEMS]
    spec = offsets_check(schema)
    return dg.AssetCheckResult(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR,
        description=" ".join(shown) or f"{len(files)} files, no gap.",
        metadata={
            "writers": len(offsets),
            "deliveries": sum(len(landed) for landed in offsets.values()),
            "files": len(files),
            "files_opened": len(newest),
            "problems": dg.MetadataValue.md("\n".join(f"- {problem}" for problem in shown)),
        },
    )


def rejected_share(target: Target, schema: str) -> dg.AssetCheckResult:
    """Compare the last day's share of rejected events with that of the four weeks before."""
    now = datetime.now(UTC)
    since = now - _REJECTED_WINDOW
    events, rejected = _loaded(target, schema, since, now)
    before, rejected_before = _loaded(target, schema, since - _HISTORY, since)
    usual = rejected_before / before if before >= _LEAST_EVENTS else None
    most = _REJECTED_SHARE if usual is None else max(_SMALL_SHARE, _TIMES_USUAL * usual)
    share = rejected / events if events else 0.0
    reasons = target.query(
        f'SELECT {KIND_OF_REASON} AS kind, count(*) FROM "{schema}"._sdc_rejected'  # noqa: S608
        f" WHERE _sdc_rejected_at >= {_time(since)}"
        f" GROUP BY kind ORDER BY count(*) DESC, kind LIMIT {_REASONS}"
    )
    return dg.AssetCheckResult(
        passed=share <= most,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{rejected} of {events} events of the last day were rejected ({share:.2%});"
            + (" what is usual is unknown yet." if usual is None else f" usual are {usual:.2%}.")
        ),
        metadata={
            "events": events,
            "rejected": rejected,
            "share": share,
            **({} if usual is None else {"usual_share": usual}),
            "reasons": dg.MetadataValue.md(
                markdown_table(("reason", "events"), reasons.rows, _REASON_WIDTH)
            ),
        },
    )


def _loaded(target: Target, schema: str, since: datetime, until: datetime) -> tuple[int, int]:
    """Return the events of a time's loads, and how many of them were rejected."""
    [(events, rejected)] = target.query(
        # A replay takes back what loads of other days may have rejected.
        "SELECT coalesce(sum(events), 0), greatest(coalesce(sum(rejected), 0), 0)"  # noqa: S608
        f' FROM "{schema}"._sdc_loads'
        f" WHERE batched_at >= {_time(since)} AND batched_at < {_time(until)}"
    ).rows
    return int(str(events)), int(str(rejected))


def _time(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.isoformat()}'"


def _on_tables(
    settings: Settings, schema: str, check: Callable[[Target, str], dg.AssetCheckResult]
) -> dg.AssetCheckResult:
    try:
        with closing(open_warehouse(settings)) as target:
            if not target.state(schema).table_columns:
                return dg.AssetCheckResult(passed=True, description="Nothing is loaded yet.")
            return check(target, schema)
    except PipelineError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _footer_problem(settings: Settings, file: LandingFile) -> str | None:
    try:
        rows = pq.read_metadata(file.path(settings.landing)).num_rows
    except (OSError, pa.ArrowException) as error:
        return f"{file.relative_path} cannot be read: {str(error).splitlines()[0]}."
    promised = file.last - file.first + 1
    if rows == promised:
        return None
    return f"{file.relative_path} holds {rows} rows, its name promises {promised}."
