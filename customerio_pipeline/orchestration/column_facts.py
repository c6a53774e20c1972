"""What Dagster shows of columns: types, what they mean, and which other columns they come from."""

from collections.abc import Iterable, Mapping

import dagster as dg

from customerio_pipeline.loading.target import DATA, Column, SchemaState
from customerio_pipeline.orchestration.keys import data_key, landing_key
from customerio_pipeline.warehouse.view_columns import (
    ACTION_ID,
    CAMPAIGN_NAME,
    CIO_ID,
    CONTENT_ID,
    CUSTOMER_ID,
    DELIVERY_ID,
    EMAIL_SOURCES,
    FLAGS,
    JOURNEY_ID,
    LINK_FIELDS,
    ORIGINS,
    SUBJECT,
    VIEWS,
)

_FIELDS = (
    *(DELIVERY_ID, CUSTOMER_ID, CIO_ID, *ORIGINS, ACTION_ID, CAMPAIGN_NAME, SUBJECT, JOURNEY_ID),
    *(CONTENT_ID, *LINK_FIELDS, *FLAGS),
)
_OUTCOME = ("metric", "event_type", "timestamp")

_MEANINGS = {
    "event_id": "the key: one row for each, the latest version of it",
    "object_type": "`email`, `push`, `sms` …: what the event is about",
    "metric": "`sent`, `opened` …: what happened",
    "event_type": "both of these, in the legacy format",
    "timestamp": "when it happened, seconds since 1970",
    "data__recipient": "address, number, channel or URL it went to",
    "data__recipients": "the devices that a push went to",
    "data__content": "the body of the message, where the webhook sends it",
    "_sdc_received_at": "when the receiver took the delivery",
    "_sdc_batched_at": "when the row was loaded",
    "_sdc_sequence": "order of receipt: the greatest of an event_id wins",
    "_sdc_table_version": "always 0: the table is never reset",
    "_sdc_writer": "who numbered the delivery in landing",
    "_sdc_offset": "its number",
    "_sdc_overflow": "values for which the table had no column left, as JSON",
    **dict.fromkeys(EMAIL_SOURCES, "the person's address"),
    **{source: field.description for field in _FIELDS for source in field.sources},
}

_LANDING_COLUMNS = {
    "_sdc_received_at": "received_at",
    "_sdc_sequence": "_sdc_sequence",
    "_sdc_writer": "writer",
    "_sdc_offset": "offset",
}
_OF_THE_LOAD = frozenset({"_sdc_batched_at", "_sdc_table_version", "_sdc_key"})

_VIEW_SOURCES: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id",),
    "occurred_at": ("timestamp",),
    "received_at": ("_sdc_received_at",),
    "object_type": ("object_type", "event_type"),
    "metric": ("metric", "event_type"),
    "email": (*EMAIL_SOURCES, "data__recipient"),
    "recipient": ("data__recipient",),
    "by_machine": ("data__prefetched", "data__machine"),
    "day": ("timestamp",),
    "source_type": tuple(source for origin in ORIGINS for source in origin.sources),
    "source_id": tuple(source for origin in ORIGINS for source in origin.sources),
    "first_event_at": ("timestamp",),
    "last_event_at": ("timestamp",),
    "event_count": ("event_id",),
    "deliveries": DELIVERY_ID.sources,
    "_sdc_sequence": ("_sdc_sequence",),
    "_sdc_batched_at": ("_sdc_batched_at",),
    **{field.name: field.sources for field in _FIELDS},
}

Facts = dict[str, dg.TableSchema | dg.TableColumnLineage]


def data_schema(state: SchemaState) -> Facts:
    """Return the columns of `data`, with what they mean; nothing when there is no table."""
    if not state.table_columns:
        return {}
    keys = {column.name: column for column in state.columns if column.table == DATA}
    columns = [
        dg.TableColumn(
            name, type=kind.value if kind else "other", description=_meaning(name, keys.get(name))
        )
        for name, kind in state.table_columns.items()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)}


def data_lineage(schema: str, columns: Iterable[str]) -> Facts:
    """Return from which columns of landing the columns of `data` come."""
    landing = landing_key(schema)
    return _lineage(
        {
            name: [dg.TableColumnDep(landing, _LANDING_COLUMNS.get(name, "body"))]
            for name in columns
            if name not in _OF_THE_LOAD
        }
    )


def view_lineage(schema: str, view: str, columns: Iterable[str]) -> Facts:
    """Return from which columns of `data`, of those there are, the columns of a view come."""
    there = set(columns)
    data = data_key(schema)
    return _lineage(
        {
            column.name: [
                dg.TableColumnDep(data, source)
                for source in _VIEW_SOURCES.get(column.name, _OUTCOME)
                if source in there
            ]
            for column in VIEWS[view][1]
        }
    )


def _lineage(columns: Mapping[str, list[dg.TableColumnDep]]) -> Facts:
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=columns)}


def _meaning(name: str, column: Column | None) -> str | None:
    if name in _MEANINGS:
        return _MEANINGS[name]
    if column is None:
        return None
    if column.is_split:
        return f"values of {column.base_name} that are {column.type.value}"
    return f"the key {'.'.join(column.path)}"
