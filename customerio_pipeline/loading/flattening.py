"""From one event to one flat row (stitch-loading 3 and 4).

The keys seen so far form a tree whose nodes remember their columns, so a known key costs two
dictionary look-ups and a new one is decided once (`customerio_pipeline.loading.columns`). The
same tree tells the bulk path which keys and types it may take without looking
(`customerio_pipeline.loading.shapes`).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from customerio_pipeline.loading.columns import OVERFLOW_COLUMN, ColumnMap
from customerio_pipeline.loading.exact_json import (
    MAX_DEPTH,
    MAX_TEXT_DEPTH,
    JsonText,
    NumberText,
    nesting,
)
from customerio_pipeline.loading.masking import NO_MASKING, Masking
from customerio_pipeline.loading.names import full_name
from customerio_pipeline.loading.target import ColumnType, Kind
from customerio_pipeline.registry.records import FieldAction

Row = dict[str, object]

Explode = Callable[[tuple[str, ...], object], bool]
"""Takes the path and the value of an array; False when it is to stay in the row."""

MAX_SURELY_FITTING = 200
"""Values of an event that fit into a row of any warehouse, whatever they are."""

_ROW_BYTES = 7800
"""A row of PostgreSQL must fit into a page of 8 KiB: 8,160 bytes, less the header and the bits that
say which of up to 1,600 columns are null."""

_LONGEST_INLINE_BYTES = 24
"""PostgreSQL moves longer texts out of their row, where 18 bytes stay."""

MAX_KEYS = 4000
"""Keys that the tree remembers; more, from odd events, are looked up each time."""

_KINDS: dict[type, Kind] = {
    str: Kind.TEXT,
    int: Kind.BIGINT,
    float: Kind.DOUBLE,
    bool: Kind.BOOLEAN,
    list: Kind.JSON,
    JsonText: Kind.JSON,
    NumberText: Kind.NUMBER,
}
_TYPES = {kind: value_type for value_type, kind in _KINDS.items() if value_type is not JsonText}
_MIN_BIGINT, _MAX_BIGINT = -(2**63), 2**63 - 1


class Node:
    """A key at its place in the event."""

    __slots__ = ("action", "children", "columns", "is_object", "path")

    def __init__(self, path: tuple[str, ...], action: FieldAction | None = None) -> None:
        self.path = path
        self.action = action
        """What is done to values before anything else; None: nothing."""

        self.is_object = False
        self.children: dict[str, Node] = {}
        # By type of value: enumeration members hash in Python, types in C.
        self.columns: dict[type, str] = {}


class Flattener:
    """Flattens events and remembers what it learned of their keys."""

    def __init__(
        self, columns: ColumnMap, path: tuple[str, ...] = (), masking: Masking = NO_MASKING
    ) -> None:
        """Begin with what `columns` knows; `path` is where the table's rows are in the event."""
        self.root = Node(path)
        self.masking = masking
        self.version = 0
        """Rises whenever the tree learns something."""

        self._columns = columns
        self._keys = 0
        for column in columns.mappings:
            node = self.root
            for key in column.path[len(path) :]:
                node.is_object = True
                node = self._child(node, key)
            node.columns[_TYPES[column.kind]] = column.name
        self.root.is_object = True

    def row(self, event: dict[str, object], explode: Explode | None = None) -> Row:
        """Return the row of an event: column name to value; nulls are left out.

        With `explode` it is offered each array, which becomes JSON text where it declines.
        """
        row: Row = {}
        overflow: dict[str, object] = {}
        self._flatten(event, self.root, row, overflow, explode)
        if len(row) > MAX_SURELY_FITTING:
            self._move_surplus(row, overflow)
        if overflow:
            row[OVERFLOW_COLUMN] = _json_text(overflow)
        return row

    def _flatten(  # noqa: C901, PLR0912  the hot loop: calls cost more than they explain
        self,
        value: dict[str, Any],
        node: Node,
        row: Row,
        overflow: dict[str, object],
        explode: Explode | None,
    ) -> None:
        children = node.children
        for key, item in value.items():
            child = children.get(key) or self._child(node, key)
            if item is None:
                continue
            kind = type(item)
            if kind is dict:
                if len(child.path) < MAX_DEPTH:
                    if not child.is_object:
                        child.is_object = True
                        self.version += 1
                    self._flatten(item, child, row, overflow, explode)
                    continue
                kind = list
            elif (
                explode is not None
                and (kind is list or kind is JsonText)
                and child.action is None
                and explode(child.path, item)
            ):
                continue
            if child.action is not None:
                item = self._masked(child.action, kind, item)  # noqa: PLW2901
                if item is None:
                    continue
                kind = str
            elif kind is int:
                if not _MIN_BIGINT <= item <= _MAX_BIGINT:
                    kind, item = NumberText, str(item)  # noqa: PLW2901
            elif kind is list or kind is JsonText:
                item = _json_text(item)  # noqa: PLW2901
                # Neither creates a column (stitch-loading 4.9), nor fills one that exists: the
                # table must not depend on the order of events.
                if not item.strip(EMPTY_JSON):
                    continue
                if _is_too_deep(item):
                    kind, item = str, str(item)  # noqa: PLW2901
            name = child.columns.get(kind) or self._column(child, kind)
            if name is not None:
                row[name] = item
            else:
                is_json = kind in (list, JsonText, NumberText)
                path = child.path[len(self.root.path) :]
                name = _free_name(full_name(path), overflow)
                overflow[name] = msgspec.Raw(item.encode()) if is_json else item

    def _child(self, node: Node, key: str) -> Node:
        child = node.children.get(key)
        if child is None:
            path = (*node.path, key)
            child = Node(path, self.masking.action(path, self.root.path))
            if self._keys < MAX_KEYS:
                node.children[key] = child
                self._keys += 1
                self.version += 1
        return child

    def _masked(self, action: FieldAction, kind: type, item: object) -> str | None:
        """Return what takes the place of a value; None when nothing does."""
        if action is FieldAction.DROP:
            return None
        if kind is list or kind is JsonText:
            item = _json_text(item)
            if not item.strip(EMPTY_JSON):
                return None
        return self.masking.hashed(item)

    def _column(self, node: Node, kind: type) -> str | None:
        is_hashed = node.action is FieldAction.HASH
        column = self._columns.column(node.path, _KINDS[kind], is_hashed=is_hashed)
        if column is None:
            return None
        node.columns[kind] = column.name
        self.version += 1
        return column.name

    def _move_surplus(self, row: Row, overflow: dict[str, object]) -> None:
        """Keep the first values, as many as a row of any warehouse holds."""
        size = numbers = others = 0
        for name, value in list(row.items()):
            kind = self._columns.types.get(name, ColumnType.TEXT)
            if kind in (ColumnType.BIGINT, ColumnType.DOUBLE):
                size += 8
                numbers += 1
            else:
                text = value if isinstance(value, str) else ""
                size += min(len(text.encode()) + 1, _LONGEST_INLINE_BYTES)
                others += 1
            # Numbers are aligned to 8 bytes, at worst after each value that is none.
            if size + 7 * min(numbers, others + 1) > _ROW_BYTES and name != "event_id":
                del row[name]
                is_json = kind is ColumnType.JSON
                overflow[_free_name(name, overflow)] = (
                    msgspec.Raw(str(value).encode()) if is_json else value
                )


EMPTY_JSON = "[]{}nul, "
"""Characters of arrays that hold nothing but nulls and empty containers."""


def _free_name(name: str, overflow: dict[str, object]) -> str:
    while name in overflow:
        name += "__2"
    return name


def _is_too_deep(json_text: str) -> bool:
    # Counting brackets is fast, and almost always enough to know.
    if json_text.count("[") + json_text.count("{") <= MAX_TEXT_DEPTH:
        return False
    return nesting(json_text) > MAX_TEXT_DEPTH


def _json_text(value: object) -> str:
    if isinstance(value, str):
        return str(value)
    return msgspec.json.encode(value).decode()
