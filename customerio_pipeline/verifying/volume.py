"""What was loaded lately, hour by hour: how much of each metric, and how fast."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from customerio_pipeline.loading.target import Reader

_HOUR_SECONDS = 3600
_HOURS = 24

_VOLUME = """
SELECT floor(extract(epoch FROM _sdc_received_at) / 3600)::BIGINT AS hour,
       {metric} AS metric, count(*) AS events
FROM "{schema}".data
WHERE _sdc_received_at >= $1
GROUP BY 1, 2
"""
_LAG = """
SELECT hour, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::DOUBLE PRECISION,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)::DOUBLE PRECISION
FROM (
    SELECT floor(extract(epoch FROM _sdc_received_at) / 3600)::BIGINT AS hour,
           extract(epoch FROM _sdc_batched_at) - extract(epoch FROM _sdc_received_at) AS seconds
    FROM "{schema}".data
    WHERE _sdc_received_at >= $1
) AS lately
GROUP BY hour
"""


@dataclass(frozen=True, slots=True)
class Hour:
    """What was received in one hour, UTC, and is in `data` now."""

    begin: datetime
    events: dict[str, int]
    """By metric; an event without one counts as ``none``."""

    lag_p50: float | None
    """Seconds from receipt to the load; None when nothing came."""

    lag_p95: float | None


def last_hours(reader: Reader, schema: str, now: datetime) -> Sequence[Hour]:
    """Return the last 24 hours, the oldest first; the last one still runs.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    last = int(now.timestamp()) // _HOUR_SECONDS
    numbers = range(last - _HOURS + 1, last + 1)
    since = datetime.fromtimestamp(numbers[0] * _HOUR_SECONDS, UTC)
    events: dict[int, dict[str, int]] = {number: {} for number in numbers}
    lags: dict[int, tuple[float, float]] = {}
    columns = reader.state(schema).table_columns
    if "_sdc_received_at" in columns:
        metric = "coalesce(metric::VARCHAR, 'none')" if "metric" in columns else "'none'"
        for number, name, count in reader.query(
            _VOLUME.format(schema=schema, metric=metric), [since]
        ).rows:
            events.setdefault(int(str(number)), {})[str(name)] = int(str(count))
        for number, p50, p95 in reader.query(_LAG.format(schema=schema), [since]).rows:
            lags[int(str(number))] = float(str(p50)), float(str(p95))
    return [
        Hour(
            since + timedelta(hours=number - numbers[0]),
            events[number],
            *lags.get(number, (None, None)),
        )
        for number in numbers
    ]
