"""The bulk path: which deliveries the engine may flatten by itself, and how.

A delivery's *shape* is the keys of its objects and the JSON type at each key. A shape is plain
when every key and type in it already has a column, so that flattening is mere extraction. Only
shapes are judged, never single events: a batch of 100,000 has about a hundred. What is not plain
goes through `customerio_pipeline.loading.flattening`, which also teaches the tree new shapes.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from customerio_pipeline.loading.exact_json import MAX_DEPTH
from customerio_pipeline.loading.flattening import EMPTY_JSON, Node

# What the engine's JSON reader accepts or prints differently from the exact one: trailing commas,
# NaN and infinities, numbers that may exceed bigint or double, escaped control characters (NUL
# among them). Inside text these are harmless; such events merely take the slower path.
HAZARDS = (
    r",\s*[}\]]"
    r"|[:,\[]\s*-?(?:(?i:nan|inf)|[0-9]{19}|[0-9.]+[eE]\+?[0-9]{3})"
    r"|\\u00[01]"
)

_TYPES: dict[str, type] = {
    "VARCHAR": str,
    "UBIGINT": int,
    "BIGINT": int,
    "DOUBLE": float,
    "BOOLEAN": bool,
    "ARRAY": list,
}


class Shape(NamedTuple):
    """Keys by object path and types by node path, in the order of `Paths`."""

    keys: Sequence[Sequence[str] | None]
    types: Sequence[str | None]


class Paths:
    """The tree's keys as the engine is asked for them."""

    def __init__(self, root: Node) -> None:
        self.nodes = [node for node in _walk(root) if node is not root]
        self.objects = [root, *(node for node in self.nodes if node.is_object)]

    def keys_sql(self, text: str) -> str:
        """Return the expression for the keys of each object."""
        return f"json_keys({text}, {_list(self.objects)})"

    def types_sql(self, text: str) -> str:
        """Return the expression for the type at each node."""
        if not self.nodes:
            return "[]"
        return f"json_type({text}, {_list(self.nodes)})"

    def is_plain(self, shape: Shape) -> bool:
        """Tell whether every key and type of a shape is known and has its column."""
        return all(
            keys is None or _are_plain(node, keys)
            for node, keys in zip(self.objects, shape.keys, strict=True)
        ) and all(
            _is_decided(node, name) for node, name in zip(self.nodes, shape.types, strict=True)
        )

    def columns_sql(self, shapes: Sequence[Shape], text: str, extracted: str) -> dict[str, str]:
        """Return, for plain shapes, each column's expression.

        `extracted` names the result of `transform_sql`; a place that takes values of several
        types, or objects too, is asked again for its type in each row.
        """
        present: defaultdict[int, set[type]] = defaultdict(set)
        mixed = set()
        for shape in shapes:
            for at, name in enumerate(shape.types):
                if name in _TYPES:
                    present[at].add(_TYPES[name])
                elif name == "OBJECT":
                    mixed.add(at)
        columns = {}
        for at, types in present.items():
            node = self.nodes[at]
            for value_type in types:
                if len(types) == 1 and at not in mixed and not node.is_object:
                    leaf = ".".join([extracted, *(_identifier(key) for key in node.path)])
                    sql = _cast(leaf, value_type)
                else:
                    names = [repr(name) for name, known in _TYPES.items() if known is value_type]
                    path = _json_path(node)
                    sql = (
                        f"CASE WHEN json_type({text}, {path}) IN ({', '.join(names)}) THEN "
                        + _cast(f"json_extract_string({text}, {path})", value_type)
                        + " END"
                    )
                columns[node.columns[value_type]] = sql
        return columns

    def transform_sql(self, text: str) -> str:
        """Return the expression that extracts every leaf as text, in one pass."""
        structure: dict[str, object] = {}
        for node in self.nodes:
            place = structure
            for key in node.path[:-1]:
                place = place.setdefault(key, {})  # type: ignore[assignment]  # objects only
            if node.is_object:
                place.setdefault(node.path[-1], {})
            else:
                place[node.path[-1]] = "VARCHAR"
        return f"json_transform({text}, {_literal(json.dumps(_without_empty(structure)))})"


def _cast(leaf: str, value_type: type) -> str:
    """Return the expression that turns a leaf's text into the value that it was."""
    if value_type is int:
        return f"CAST({leaf} AS BIGINT)"
    if value_type is float:
        return f"CAST({leaf} AS DOUBLE)"
    if value_type is bool:
        return f"{leaf} = 'true'"
    if value_type is list:
        return f"CASE WHEN trim({leaf}, '{EMPTY_JSON}') <> '' THEN {leaf} END"
    return leaf


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in _plain_children(node).values():
        yield from _walk(child)


def _plain_children(node: Node) -> dict[str, Node]:
    """Leave out keys that the engine would mix up or refuse: it folds case and has no ``""``."""
    folded: defaultdict[str, int] = defaultdict(int)
    for key in node.children:
        folded[key.lower()] += 1
    return {
        key: child
        for key, child in node.children.items()
        if folded[key.lower()] == 1 and key and key.isprintable() and not set(key) & set('"\\*')
    }


def _are_plain(node: Node, keys: Sequence[str]) -> bool:
    plain = _plain_children(node)
    return len(set(keys)) == len(keys) and all(key in plain for key in keys)


def _is_decided(node: Node, name: str | None) -> bool:
    if name is None or name == "NULL":
        return True
    if name == "OBJECT":
        return node.is_object and len(node.path) < MAX_DEPTH
    return _TYPES.get(name) in node.columns


def _without_empty(structure: dict[str, object]) -> dict[str, object]:
    """Drop objects without leaves: the engine refuses an empty structure."""
    kept = {}
    for key, value in structure.items():
        inner = _without_empty(value) if isinstance(value, dict) else value
        if inner:
            kept[key] = inner
    return kept


def _list(nodes: Sequence[Node]) -> str:
    return f"[{', '.join(_json_path(node) for node in nodes)}]"


def _json_path(node: Node) -> str:
    return _literal("$" + "".join(f'."{key}"' for key in node.path))


def _identifier(key: str) -> str:
    return f'"{key}"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
