"""Records that could not become rows: how many for which reason, and the newest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from customerio_pipeline.loading.target import Reader

_LONGEST_RECORD = 300
_MOST_REASONS = 20

KIND_OF_REASON = (
    r"regexp_replace(reason, '(( starting)? at)?: line \d+ column \d+ \(char \d+\)$"
    r"| at (character|byte) \d+$', '')"
)
"""SQL of DuckDB and PostgreSQL alike: a reason without where in the body it was.

Bodies that break off each break off somewhere else. How long an event_id may be is no place.
"""

_REASONS = f"""
SELECT {KIND_OF_REASON} AS kind, count(*) AS records, max(_sdc_received_at), min(reason)
FROM "{{schema}}"._sdc_rejected
GROUP BY kind
ORDER BY records DESC, kind
LIMIT {{most}}
"""
_NEWEST = """
SELECT _sdc_received_at, reason, left(record, {longest}), length(record) > {longest},
       writer, "offset"
FROM "{schema}"._sdc_rejected
ORDER BY _sdc_received_at DESC, writer, "offset" DESC
LIMIT {limit}
"""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why records were rejected."""

    kind: str
    """Without the place in the body, which differs from record to record."""

    records: int
    last_received_at: datetime
    example: str
    """Of one of them, with the place."""


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that could not become a row."""

    received_at: datetime
    reason: str
    beginning: str
    """Of the record."""

    is_cut: bool
    """Whether there is more of it."""

    writer: str
    offset: int


def rejected_records(
    reader: Reader, schema: str, limit: int
) -> tuple[Sequence[Reason], Sequence[RejectedRecord]]:
    """Return the most frequent reasons, and the newest records.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    if not reader.state(schema).table_columns:
        return [], []
    reasons = reader.query(_REASONS.format(schema=schema, most=_MOST_REASONS)).rows
    records = reader.query(_NEWEST.format(schema=schema, longest=_LONGEST_RECORD, limit=limit)).rows
    return (
        [Reason(*row) for row in reasons],  # type: ignore[arg-type]  # the columns' types
        [RejectedRecord(*row) for row in records],  # type: ignore[arg-type]  # the columns' types
    )
