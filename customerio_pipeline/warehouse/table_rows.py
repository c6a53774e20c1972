"""Rows of the tables beside `data`, the same in every warehouse, and how they are read back."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import uuid4

from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.names import full_name
from customerio_pipeline.loading.target import (
    DATA,
    Batch,
    Column,
    ColumnType,
    Kind,
    MergeCounts,
    Removal,
    RemovalCounts,
    SchemaState,
    TableColumns,
)


def schema_state(
    watermarks: Iterable[tuple[str, int, int]],
    columns: Iterable[tuple[str, str, str, str, str, str]],
    tables: Mapping[str, TableColumns],
    held: Iterable[tuple[str, int]] = (),
) -> SchemaState:
    """Build what loading asks for.

    Args:
        watermarks: rows of ``_sdc_watermarks``.
        columns: name, type, path, kind, base_name and table_name from ``_sdc_columns``.
        tables: columns of the tables that are there, in their order.
        held: writer and offset from ``_sdc_held``.
    """
    held_offsets: dict[str, OffsetSet] = {}
    for writer, offset in held:
        held_offsets.setdefault(writer, OffsetSet()).add(offset, offset)
    loaded: dict[str, OffsetSet] = {}
    for writer, first, following in watermarks:
        loaded.setdefault(writer, OffsetSet()).add(first, following - 1)
    mapping = [
        Column(name, ColumnType(kind), _split_path(path), Kind(value_kind), base, table)
        for name, kind, path, value_kind, base, table in columns
    ]
    return SchemaState(
        loaded,
        mapping,
        tables.get(DATA, {}),
        {name: tables.get(name, {}) for name in {column.table for column in mapping} - {DATA}},
        held_offsets,
    )


def watermark_rows(writer: str, loaded: OffsetSet, batch: Batch) -> list[tuple[str, int, int]]:
    """Return a writer's rows of ``_sdc_watermarks`` after a batch; `loaded` is those before it.

    Raises:
        WarehouseError: the batch holds nothing that was not loaded.
    """
    before = len(loaded)
    for first, last in batch.loaded[writer]:
        loaded.add(first, last)
    if len(loaded) == before and writer not in batch.released:
        raise loaded_meanwhile(writer)
    return [(writer, first, last + 1) for first, last in loaded]


def loaded_meanwhile(writer: str) -> WarehouseError:
    """Return the error of a batch that another load was faster with."""
    return WarehouseError(
        f"Offsets of writer {writer} were loaded by somebody else meanwhile; nothing was"
        " changed, the next load goes on from there."
    )


def column_rows(
    mappings: Iterable[Column], added_at: datetime
) -> list[tuple[str, str, str, str, str, str, str, datetime]]:
    """Return the rows of ``_sdc_columns`` for new entries of the mapping."""
    return [
        (
            column.table,
            column.name,
            str(column.type),
            json.dumps(column.path, ensure_ascii=False),
            str(column.kind),
            column.base_name,
            full_name(column.path_in_table),
            added_at,
        )
        for column in mappings
    ]


def load_row(batch: Batch, counts: MergeCounts) -> tuple[object, ...]:
    """Return the batch's row of ``_sdc_loads``."""
    return (
        batch.load_id,
        batch.batched_at,
        batch.run_id,
        batch.files,
        batch.deliveries,
        batch.events,
        counts.inserted,
        counts.updated,
        batch.events - counts.inserted - counts.rejected,  # duplicates
        counts.rejected,
        batch.received_from,
        batch.received_to,
    )


def removal_row(removal: Removal, counts: RemovalCounts) -> tuple[object, ...] | None:
    """Return the row of ``_sdc_loads`` that corrects the counts; None if they are right."""
    removed = counts.data + counts.rejected
    if not removed and not counts.held:
        return None
    return (
        uuid4().hex,
        removal.removed_at,
        None,  # run_id
        0,  # files
        counts.held,
        -removed,
        -counts.data,
        0,  # updated
        0,  # duplicates: that they came is true
        -counts.rejected,
        None,
        None,
    )


def _split_path(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))
