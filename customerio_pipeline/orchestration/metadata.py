"""What a materialization tells a person: counts, lag, table schema, the newest rows.

Nothing personal is stored with Dagster's events, which outlive the rows: the preview holds
technical columns only, rejected records are counted and never shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import dagster as dg

from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.target import ColumnType, Target
from customerio_pipeline.verifying.rejected import KIND_OF_REASON

Metadata = dict[str, dg.MetadataValue | dg.TableSchema | dg.TableColumnLineage | int | float | str]

# Columns that name nobody; ids only where they are declared as numbers.
_PREVIEW_TEXT = ("event_id", "object_type", "metric")
_PREVIEW_NUMBERS = (
    "timestamp",
    "data__campaign_id",
    "data__newsletter_id",
    "data__broadcast_id",
    "data__action_id",
)
_PREVIEW_TIMES = ("_sdc_received_at", "_sdc_batched_at")
_PREVIEW_ROWS = 5
_PREVIEW_WINDOW = timedelta(hours=1)
_PREVIEW_WIDTH = 40
_TOP_REASONS = 10
_REASON_WIDTH = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Counts of one or more batches."""

    batches: int
    files: int
    deliveries: int
    events: int
    inserted: int
    updated: int
    duplicates: int
    rejected: int
    held: int
    seconds: float

    @classmethod
    def of(cls, reports: Sequence[LoadReport]) -> "Totals":
        """Add the reports up."""
        return cls(
            batches=len(reports),
            files=sum(report.files for report in reports),
            deliveries=sum(report.deliveries for report in reports),
            events=sum(report.events for report in reports),
            inserted=sum(report.inserted for report in reports),
            updated=sum(report.updated for report in reports),
            duplicates=sum(report.duplicates for report in reports),
            rejected=sum(report.rejected for report in reports),
            held=sum(report.held for report in reports),
            seconds=round(sum(report.seconds for report in reports), 3),
        )

    def __add__(self, other: "Totals") -> "Totals":
        """Return the sum of both."""
        return Totals(
            batches=self.batches + other.batches,
            files=self.files + other.files,
            deliveries=self.deliveries + other.deliveries,
            events=self.events + other.events,
            inserted=self.inserted + other.inserted,
            updated=self.updated + other.updated,
            duplicates=self.duplicates + other.duplicates,
            rejected=self.rejected + other.rejected,
            held=self.held + other.held,
            seconds=round(self.seconds + other.seconds, 3),
        )

    @property
    def sentence(self) -> str:
        """One line for a log."""
        return (
            f"{self.events} events of {self.deliveries} deliveries in {self.files} files:"
            f" {self.inserted} inserted, {self.duplicates} duplicates absorbed"
            f" ({self.updated} rows updated by them), {self.rejected} rejected,"
            f" {self.held} deliveries held,"
            f" in {self.seconds:.2f} s"
        )


def batch_metadata(reports: Sequence[LoadReport]) -> Metadata:
    """Describe what some batches did to `data`; plots of these values add up over a run."""
    totals = Totals.of(reports)
    newest = reports[-1]
    return {
        "deliveries_read": totals.deliveries,
        "events_read": totals.events,
        "rows_inserted": totals.inserted,
        "rows_updated": totals.updated,
        "duplicates_absorbed": totals.duplicates,
        "events_rejected": totals.rejected,
        "deliveries_held": totals.held,
        "lag_seconds": round(newest.lag_seconds, 3),
        "lag_seconds_oldest": round(max(report.lag_max_seconds for report in reports), 3),
        "files": totals.files,
        "batches": totals.batches,
        "seconds": totals.seconds,
        "dagster/row_count": newest.row_count,
        **_new_columns(reports),
    }


def run_metadata(totals: Totals) -> Metadata:
    """Describe what a whole run did."""
    if not totals.batches:
        return {"result": "Nothing was waiting in landing."}
    rows = {
        "Batches": totals.batches,
        "Landing files": totals.files,
        "Deliveries read": totals.deliveries,
        "Events read": totals.events,
        "Rows inserted": totals.inserted,
        "Rows updated": totals.updated,
        "Duplicates absorbed": totals.duplicates,
        "Events rejected": totals.rejected,
        "Seconds of loading": totals.seconds,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return {"run_totals": dg.MetadataValue.md("\n".join(["| | |", "|---|---|", *lines]))}


def newest_rows(target: Target, schema: str, columns: Mapping[str, ColumnType | None]) -> Metadata:
    """Return a preview of the newest rows, without personal data."""
    shown = [
        *(name for name in _PREVIEW_TEXT if name in columns),
        *(name for name in _PREVIEW_NUMBERS if columns.get(name) is ColumnType.BIGINT),
        *(name for name in _PREVIEW_TIMES if name in columns),
    ]
    if not shown:
        return {}
    selected = ", ".join(f'"{name}"' for name in shown)
    recent = _recent(target, schema) if "_sdc_received_at" in columns else ""
    result = target.query(
        f'SELECT {selected} FROM "{schema}".data{recent}'  # noqa: S608  names from lists of ours
        f" ORDER BY _sdc_sequence DESC LIMIT {_PREVIEW_ROWS}"
    )
    return {"newest_rows": dg.MetadataValue.md(markdown_table(shown, result.rows, _PREVIEW_WIDTH))}


def _recent(target: Target, schema: str) -> str:
    """Return the condition for rows of the last hour: a large table is not sorted for a preview."""
    [(newest,)] = target.query(
        f'SELECT max(received_from) FROM "{schema}"._sdc_loads WHERE inserted + updated > 0'  # noqa: S608  a checked name
    ).rows
    if not isinstance(newest, datetime):
        return ""
    return f" WHERE _sdc_received_at >= TIMESTAMPTZ '{newest - _PREVIEW_WINDOW}'"


def row_count(target: Target, schema: str) -> Metadata:
    """Count the rows of `data`; a load knows it without counting."""
    result = target.query(f'SELECT count(*) FROM "{schema}".data')  # noqa: S608  a checked name
    return {"dagster/row_count": int(str(result.rows[0][0]))}


def rejected_rows(target: Target, schema: str) -> Metadata:
    """Describe `_sdc_rejected`: how many rows, and why."""
    result = target.query(
        f'SELECT {KIND_OF_REASON} AS kind, count(*) FROM "{schema}"._sdc_rejected'  # noqa: S608
        " GROUP BY kind ORDER BY count(*) DESC, kind"
    )
    count = sum(int(str(row[1])) for row in result.rows)
    if not count:
        return {"dagster/row_count": 0}
    table = markdown_table(("reason", "rows"), result.rows[:_TOP_REASONS], _REASON_WIDTH)
    return {"dagster/row_count": count, "reasons": dg.MetadataValue.md(table)}


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]], max_width: int) -> str:
    """Return a Markdown table whose cells cannot be mistaken for markup."""
    head = [" | ".join(columns), " | ".join("---" for _ in columns)]
    body = [" | ".join(_cell(value, max_width) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in [*head, *body])


def _cell(value: object, max_width: int) -> str:
    if value is None:
        return ""
    text = " ".join(str(value).split())
    if len(text) > max_width:
        text = text[: max_width - 1] + "…"
    return "".join(f"\\{c}" if c in "\\`*[]<>|#!" else c for c in text)


def _new_columns(reports: Sequence[LoadReport]) -> Metadata:
    new = dict.fromkeys(name for report in reports for name in report.new_columns)
    split = dict.fromkeys(name for report in reports for name in report.split_columns)
    found = {"new_columns": new, "split_columns": split}
    return {name: ", ".join(columns) for name, columns in found.items() if columns}
