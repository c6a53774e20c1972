"""SQL of the views for analysts, made from the columns that `data` has.

Pure text: the warehouses' adapters create the views and keep them up to date. Each view reads
`data` itself, so that none depends on another: somebody's own table named `events` leaves
`deliveries` intact.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from customerio_pipeline.loading.columns import SYSTEM_COLUMNS
from customerio_pipeline.loading.names import unique_name
from customerio_pipeline.loading.target import ColumnType
from customerio_pipeline.warehouse import view_columns as fields
from customerio_pipeline.warehouse.view_columns import FLAGS, HUMAN, ORIGINS, OUTCOMES, VIEWS, Field
from customerio_pipeline.warehouse.view_expressions import Columns, Dialect, Expressions, quoted

_MARK = "Kept up to date by customerio-pipeline"
_VERSION = re.compile(rf"{_MARK} \(([0-9a-f]{{16}})\)")

_EVENT_FIELDS = (
    fields.DELIVERY_ID,
    fields.CUSTOMER_ID,
    fields.CIO_ID,
    *ORIGINS,
    fields.ACTION_ID,
    fields.CAMPAIGN_NAME,
    fields.SUBJECT,
    *fields.LINK_FIELDS,
    fields.JOURNEY_ID,
    fields.CONTENT_ID,
    *FLAGS,
)
_DELIVERY_FIELDS = (
    fields.CUSTOMER_ID,
    fields.CIO_ID,
    *ORIGINS,
    fields.ACTION_ID,
    fields.CAMPAIGN_NAME,
    fields.SUBJECT,
    fields.JOURNEY_ID,
    fields.CONTENT_ID,
)
_ONLY_AFTER_SENDING = OUTCOMES[OUTCOMES.index("sent") + 1 :]
_BITS = {
    name: 1 << bit for bit, name in enumerate((*OUTCOMES, *(f"human_{name}" for name in HUMAN)))
}
_REPORT_NO_DELIVERED = "('in_app', 'slack', 'webhook')"
"""Channels whose messages have no such event (customerio-webhooks 1.5)."""


class ViewDefinition(NamedTuple):
    """A view as it should be."""

    name: str
    select: str
    comment: str
    """For people; it carries the mark by which the view is known as ours, and its version."""


def view_definitions(columns: Columns, dialect: Dialect, table: str) -> list[ViewDefinition]:
    """Return the views over `table`, which has `columns` in this order."""
    return _view_definitions(tuple(columns.items()), dialect, table)


def version_of(comment: str | None) -> str | None:
    """Return the version that a view's comment tells; None when the view is not ours."""
    found = _VERSION.search(comment or "")
    return found[1] if found else None


@lru_cache(maxsize=8)
def _view_definitions(
    columns: tuple[tuple[str, ColumnType | None], ...], dialect: Dialect, table: str
) -> list[ViewDefinition]:
    data = Expressions(dict(columns), dialect)
    selects = (
        _select(_event_columns(data), table),
        _deliveries(data, table),
        _campaign_daily(data, table),
    )
    return [
        ViewDefinition(name, select, f"{description} {_MARK} ({_digest(select)}).")
        for (name, (description, _)), select in zip(VIEWS.items(), selects, strict=True)
    ]


def _digest(select: str) -> str:
    return hashlib.sha256(select.encode()).hexdigest()[:16]


def _event_columns(data: Expressions) -> dict[str, str]:
    found = {
        "event_id": data.column("event_id", ColumnType.TEXT),
        "occurred_at": f"to_timestamp({data.seconds()})",
        "received_at": data.column("_sdc_received_at", ColumnType.TIMESTAMP),
        "object_type": data.object_type(),
        "metric": data.metric(),
        "email": data.email(),
        "recipient": data.recipient(),
        "by_machine": data.by_machine(),
        "_sdc_sequence": data.column("_sdc_sequence", ColumnType.BIGINT),
        "_sdc_batched_at": data.column("_sdc_batched_at", ColumnType.TIMESTAMP),
        **{field.name: data.field(field) for field in _EVENT_FIELDS},
    }
    common = {column.name: found[column.name] for column in fields.EVENTS}
    others = [name for name in data.columns if not _is_shown(name, data)]
    return common | _under_their_own_names(others, common, data.columns)


def _is_shown(name: str, data: Expressions) -> bool:
    """Tell whether a common field always shows the column's value as it is."""
    if name in SYSTEM_COLUMNS or name in data.dialect.hidden:
        return True
    shown = {field.sources[0]: field.type for field in _EVENT_FIELDS}
    shown |= dict.fromkeys(
        ("object_type", "metric", "data__recipient", fields.EMAIL_SOURCES[0]), ColumnType.TEXT
    )
    return name in shown and data.columns[name] is shown[name]


def _under_their_own_names(
    others: list[str], common: Mapping[str, str], columns: Columns
) -> dict[str, str]:
    """Return the other columns; a number tells one from a common field of the same name."""
    reserved = {name.lower() for name in common}
    taken = reserved | {name.lower() for name in columns}
    return {
        unique_name(name, taken) if name.lower() in reserved else name: quoted(name)
        for name in others
    }


def _deliveries(data: Expressions, table: str) -> str:
    found = {"event_count": "count(*)", "first_event": "min(seconds)", "last_event": "max(seconds)"}
    for name in OUTCOMES:
        found |= _occurrences(name, f"metric = '{name}'")
    for name in HUMAN:
        found |= _occurrences(f"human_{name}", f"metric = '{name}' AND NOT by_machine")
    facts = ("email", "recipient")
    delivery = _per_delivery(data, table, facts, _DELIVERY_FIELDS, found)
    status = " ".join(f"WHEN {name}_count > 0 THEN '{name}'" for name in reversed(OUTCOMES))
    shown = {column.name: column.name for column in fields.DELIVERIES}
    shown |= {
        name: f"to_timestamp({name.removesuffix('_at')})" for name in shown if name.endswith("_at")
    }
    return _select(shown | {"status": f"CASE {status} END"}, f"({delivery}) AS delivery")


def _occurrences(name: str, condition: str) -> dict[str, str]:
    return {
        name: f"min(seconds) FILTER (WHERE {condition})",
        f"{name}_count": f"count(*) FILTER (WHERE {condition})",
    }


def _per_delivery(
    data: Expressions,
    table: str,
    facts: tuple[str, ...],
    kept: Iterable[Field],
    found: Mapping[str, str],
) -> str:
    """Return a query of one row per delivery: what is the same in its events, and `found`."""
    texts = {
        "object_type": data.object_type(),
        "email": data.email(),
        "recipient": data.recipient(),
    }
    events = {
        "delivery_id": data.field(fields.DELIVERY_ID),
        "metric": data.metric(),
        "seconds": data.seconds(),
        "by_machine": data.by_machine(),
        **{name: texts[name] for name in ("object_type", *facts)},
        **{field.name: data.field(field) for field in kept},
    }
    delivery = {
        "delivery_id": "delivery_id",
        **{name: data.greatest(name) for name in ("object_type", *facts)},
        **{
            field.name: data.greatest(field.name)
            if field.type is ColumnType.TEXT
            else f"max({field.name})"
            for field in kept
        },
        **found,
    }
    return (
        f"{_select(delivery, f'({_select(events, table)}) AS event')}"
        " WHERE delivery_id IS NOT NULL GROUP BY delivery_id"
    )


def _campaign_daily(data: Expressions, table: str) -> str:
    # One bit per outcome: an aggregate for each would take several times as long.
    found = {
        "outcomes": f"bit_or({_bits_of_an_event()})",
        "sent": "min(seconds) FILTER (WHERE metric = 'sent')",
        "first_event": "min(seconds)",
    }
    delivery = _per_delivery(data, table, (), (*ORIGINS, fields.CAMPAIGN_NAME), found)
    origin_type = " ".join(
        f"WHEN {origin.name} IS NOT NULL THEN '{origin.name.removesuffix('_id')}'"
        for origin in ORIGINS
    ).replace("'transactional_message'", "'transactional'")
    cohort = {
        # Not by way of a timestamptz: its date would depend on the session's time zone.
        "day": "DATE '1970-01-01' + CAST(floor(coalesce(sent, first_event) / 86400) AS integer)",
        "source_type": f"CASE {origin_type} ELSE 'unknown' END",
        "source_id": f"coalesce({', '.join(f'CAST({o.name} AS text)' for o in ORIGINS)})",
        "campaign_name": "campaign_name",
        "object_type": "object_type",
        "outcomes": "coalesce(outcomes, 0)",
    }
    was_sent = _any_of("sent", *_ONLY_AFTER_SENDING)
    conditions = {
        "sent": was_sent,
        "sent_unseen": f"{was_sent} AND NOT {_any_of('sent')}",
        "failed": f"{_any_of('failed', 'undeliverable')} AND NOT {was_sent}",
    }
    conditions |= {
        column.name: _any_of(column.name)
        for column in fields.CAMPAIGN_DAILY
        if column.name in _BITS and column.name not in conditions
    }
    keys = {name: name for name in ("day", "source_type", "source_id", "object_type")}
    daily = keys | {
        "campaign_name": data.greatest("campaign_name"),
        "deliveries": "count(*)",
        **{name: f"count(*) FILTER (WHERE {test})" for name, test in conditions.items()},
    }
    grouped = (
        _select(daily, f"({_select(cohort, f'({delivery}) AS delivery')}) AS cohort")
        + f" GROUP BY {', '.join(keys)}"
    )
    shown = {
        column.name: _rate(column.name) if column.name.endswith("_rate") else column.name
        for column in fields.CAMPAIGN_DAILY
    }
    return _select(shown, f"({grouped}) AS daily")


def _bits_of_an_event() -> str:
    bits = {name: str(_BITS[name]) for name in OUTCOMES}
    for name in HUMAN:
        bits[name] += f" + CASE WHEN by_machine THEN 0 ELSE {_BITS[f'human_{name}']} END"
    cases = " ".join(f"WHEN '{name}' THEN {value}" for name, value in bits.items())
    return f"CASE metric {cases} END"


def _any_of(*names: str) -> str:
    return f"(outcomes & {sum(_BITS[name] for name in names)}) <> 0"


def _rate(name: str) -> str:
    counted = name.removesuffix("_rate")
    base = {"delivered": "sent", "bounced": "sent", "failed": "deliveries"}.get(
        counted,
        f"CASE WHEN object_type IN {_REPORT_NO_DELIVERED} THEN sent ELSE delivered END",
    )
    return f"CAST({counted} AS double precision) / nullif({base}, 0)"


def _select(columns: Mapping[str, str], source: str) -> str:
    shown = ", ".join(
        quoted(name) if quoted(name) == value else f"{value} AS {quoted(name)}"
        for name, value in columns.items()
    )
    return f"SELECT {shown} FROM {source}"
