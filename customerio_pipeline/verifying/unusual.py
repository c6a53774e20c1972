"""What is unlike the days before: late loads, silence, new columns, metrics, order and clocks.

Each function reads the warehouse and says whether the last day is usual. What is unusual may be
right: these are warnings for a person.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median

from customerio_pipeline.connecting.events import METRICS, SUBSCRIPTION_METRICS
from customerio_pipeline.loading.declared import DECLARED_TYPES
from customerio_pipeline.loading.target import ELEMENT, ColumnType, Reader

_DAY = timedelta(days=1)
_HISTORY = timedelta(days=28)
_MOST_SHOWN = 20

_LEAST_HISTORY_DAYS = 3
_LONGER_PAUSE = 3
_LEAST_SILENCE = timedelta(hours=1)
_UNSENT_SHARE = 0.2
_LEAST_DELIVERIES = 20
_SETTLED_AFTER = timedelta(days=7)
_AHEAD_SECONDS = 300
_BEHIND_SECONDS = 8 * 24 * 3600
"""Customer.io retries for 7 days (customerio-webhooks 2)."""

_SKEWED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """What the last day is like."""

    is_usual: bool
    sentence: str
    is_grave: bool = field(default=False, kw_only=True)
    """Whether it is more than worth a look, not being usual."""

    numbers: Mapping[str, int | float] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    """A table of what was found, with `columns` as its head."""


def loaded_soon(
    reader: Reader, schema: str, now: datetime, *, warn_seconds: float, fail_seconds: float
) -> Finding:
    """Measure how old the oldest event of each load of the last day was when it got its row.

    What was imported is left out: it was received long before.
    """
    [(loads, typical, late)] = reader.query(
        "SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),"
        " percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds)"
        " FROM (SELECT CAST(extract(epoch FROM batched_at - received_from) AS DOUBLE PRECISION)"
        f' AS seconds FROM "{schema}"._sdc_loads'
        f" WHERE batched_at >= {_time(now - _DAY)}"
        f" AND received_from >= {_time(now - _DAY)}) AS lags"
    ).rows
    if not _number(loads):
        return Finding(True, "Nothing was loaded in the last day.")
    numbers = {"lag_p50_seconds": round(_number(typical), 3)}
    numbers["lag_p95_seconds"] = round(_number(late), 3)
    return Finding(
        _number(late) <= warn_seconds,
        f"From receipt to row, the oldest event of a load: {_number(typical):.1f} s in the median,"
        f" {_number(late):.1f} s at the 95th percentile of the last day's loads.",
        {"loads": int(_number(loads)), **numbers},
        is_grave=_number(late) > fail_seconds,
    )


def not_silent(reader: Reader, schema: str, now: datetime) -> Finding:
    """Compare the time since the newest event with the usual longest pause of a day.

    Usual is the median over the days of four weeks; before there are three of them, nothing is.
    """
    since = _time(now - _HISTORY)
    rows = reader.query(
        "SELECT day, max(pause), max(newest) FROM ("
        " SELECT date_trunc('day', received_from) AS day, received_to AS newest,"
        " CAST(extract(epoch FROM received_from - max(received_to) OVER (ORDER BY received_from"
        " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS DOUBLE PRECISION) AS pause"
        f' FROM "{schema}"._sdc_loads WHERE received_from >= {since}) AS pauses GROUP BY day'
    ).rows
    newest = max((each for _, _, each in rows if isinstance(each, datetime)), default=None)
    pauses = [_number(pause) for _, pause, _ in rows if pause is not None]
    if newest is None:
        return Finding(False, f"No event came in the last {_HISTORY.days} days.")
    silent = max(now - newest, timedelta(0))
    numbers = {"silent_seconds": round(silent.total_seconds())}
    if len(pauses) < _LEAST_HISTORY_DAYS:
        return Finding(
            True,
            f"The newest event came {_ago(silent)} ago; what is usual is unknown yet.",
            numbers,
        )
    usual = timedelta(seconds=max(median(pauses), 0.0))
    return Finding(
        silent <= max(_LONGER_PAUSE * usual, _LEAST_SILENCE),
        f"The newest event came {_ago(silent)} ago; the longest pause of a day is {_ago(usual)},"
        " usually.",
        {**numbers, "usual_pause_seconds": round(usual.total_seconds())},
    )


def known_columns(reader: Reader, schema: str, now: datetime) -> Finding:
    """Name columns of the last day that no documentation names, and those split by type.

    Those of the first day of an integration are all new.
    """
    rows = reader.query(
        "SELECT table_name, name, base_name, path, type, added_at"
        f' FROM "{schema}"._sdc_columns WHERE added_at >= {_time(now - _DAY)}'
        f' AND EXISTS (SELECT 1 FROM "{schema}"._sdc_columns'
        f" WHERE added_at < {_time(now - _DAY)}) ORDER BY added_at, table_name, name"
    ).rows
    new: list[tuple[object, ...]] = []
    for table, name, base, path, kind, added_at in rows:
        keys = tuple(json.loads(str(path)))
        if name != base:
            new.append((f"{table}.{name}", f"split from {base}", kind, added_at))
        elif keys[-1] == ELEMENT:
            new.append((table, "a table of arrays", None, added_at))
        elif keys not in DECLARED_TYPES:
            new.append((f"{table}.{name}", "new", kind, added_at))
    names = ", ".join(str(name) for name, *_ in new[:_MOST_SHOWN])
    more = f" and {len(new) - _MOST_SHOWN} more" if len(new) > _MOST_SHOWN else ""
    return Finding(
        not new,
        f"Added in the last day: {names}{more}." if new else "No column was added in the last day.",
        {"new_columns": len(new)},
        ("column", "is", "type", "since"),
        new[:_MOST_SHOWN],
    )


def documented_metrics(reader: Reader, schema: str, now: datetime) -> Finding:
    """Name the metrics of the last day that are not documented (customerio-webhooks 1.5, 1.6)."""
    columns = _columns(reader, schema)
    if not {"object_type", "metric"} <= columns.keys():
        return Finding(True, "No event has a metric.")
    rows = reader.query(
        "SELECT CAST(object_type AS VARCHAR), CAST(metric AS VARCHAR), count(*)"
        f' FROM "{schema}".data WHERE _sdc_received_at >= {_time(now - _DAY)}'
        " AND object_type IS NOT NULL AND metric IS NOT NULL GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"
    ).rows
    unknown = [row for row in rows if not _is_documented(str(row[0]), str(row[1]))]
    names = ", ".join(f"{kind} {metric}" for kind, metric, _ in unknown[:_MOST_SHOWN])
    return Finding(
        not unknown,
        f"Not documented: {names}." if unknown else f"{len(rows)} metrics, all documented.",
        {"metrics": len(rows), "undocumented": len(unknown)},
        ("object_type", "metric", "events"),
        unknown[:_MOST_SHOWN],
    )


def sent_before_opened(reader: Reader, schema: str, now: datetime) -> Finding:
    """Count deliveries of which the last day tells more, and no event that they were sent.

    In the first week of an integration, what was sent before it is opened still.
    """
    columns = _columns(reader, schema)
    if not {"metric", "data__delivery_id"} <= columns.keys():
        return Finding(True, "No event belongs to a delivery.")
    [(deliveries, unsent, began)] = reader.query(
        "WITH told AS (SELECT DISTINCT data__delivery_id AS id"
        f' FROM "{schema}".data WHERE _sdc_received_at >= {_time(now - _DAY)}'
        " AND metric IN ('delivered', 'opened', 'clicked') AND data__delivery_id IS NOT NULL),"
        " sent AS (SELECT DISTINCT told.id FROM told"
        f' JOIN "{schema}".data AS data ON data.data__delivery_id = told.id'
        " WHERE data.metric = 'sent')"
        " SELECT (SELECT count(*) FROM told),"
        " (SELECT count(*) FROM told) - (SELECT count(*) FROM sent),"
        f' (SELECT min(batched_at) FROM "{schema}"._sdc_loads)'
    ).rows
    told, missing = int(_number(deliveries)), int(_number(unsent))
    share = missing / told if told else 0.0
    is_young = isinstance(began, datetime) and now - began < _SETTLED_AFTER
    is_usual = share <= _UNSENT_SHARE or told < _LEAST_DELIVERIES or is_young
    advice = "" if is_usual else " Is `sent` chosen in Customer.io's webhook settings?"
    return Finding(
        is_usual,
        f"{missing:,} of {told:,} deliveries that were delivered, opened or clicked in the last day"
        f" have no event that they were sent ({share:.1%}).{advice}",
        {"deliveries": told, "without_sent": missing, "share": share},
    )


def clocks_agree(reader: Reader, schema: str, now: datetime) -> Finding:
    """Compare the last day's events with their receipt: minutes ahead, or more than 8 days behind.

    Customer.io retries for 7 days, so events of last week are nothing unusual.
    """
    if _columns(reader, schema).get("timestamp") is not ColumnType.BIGINT:
        return Finding(True, "No event has a timestamp.")
    [(events, ahead, behind, most)] = reader.query(
        f"SELECT count(*), count(*) FILTER (WHERE behind < -{_AHEAD_SECONDS}),"
        f" count(*) FILTER (WHERE behind > {_BEHIND_SECONDS}), coalesce(max(-behind), 0) FROM ("
        ' SELECT CAST(extract(epoch FROM _sdc_received_at) AS DOUBLE PRECISION) - "timestamp"'
        f' AS behind FROM "{schema}".data WHERE _sdc_received_at >= {_time(now - _DAY)}'
        ' AND "timestamp" IS NOT NULL) AS events'
    ).rows
    total, early, late = int(_number(events)), int(_number(ahead)), int(_number(behind))
    share = (early + late) / total if total else 0.0
    return Finding(
        share <= _SKEWED_SHARE,
        f"Of {total:,} events of the last day {early:,} happened more than 5 minutes after their"
        f" receipt and {late:,} more than 8 days before: {share:.1%}.",
        {
            "events": total,
            "ahead": early,
            "behind": late,
            "most_seconds_ahead": max(_number(most), 0.0),
        },
    )


def _is_documented(object_type: str, metric: str) -> bool:
    return object_type in METRICS and (
        metric in METRICS[object_type] or metric in SUBSCRIPTION_METRICS
    )


def _columns(reader: Reader, schema: str) -> Mapping[str, ColumnType | None]:
    return reader.state(schema).table_columns


def _time(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.isoformat()}'"


def _number(value: object) -> float:
    return float(str(value))


def _ago(duration: timedelta) -> str:
    """Return a duration in its largest fitting unit."""
    seconds = duration.total_seconds()
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
