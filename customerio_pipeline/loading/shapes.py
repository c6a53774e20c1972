"""The bulk path: which deliveries the engine may flatten by itself, and how.

A delivery's *shape* is the keys of its objects and the JSON type at each key. A shape is plain
when every key and type in it already has a column, so that flattening is mere extraction. Only
shapes are judged, never single events: a batch of 100,000 has some hundred. What is not plain
goes through `customerio_pipeline.loading.flattening`, which also teaches the tree new shapes.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from customerio_pipeline.loading.exact_json import MAX_DEPTH, MAX_TEXT_DEPTH
from customerio_pipeline.loading.flattening import EMPTY_JSON, MAX_SURELY_FITTING, Node
from customerio_pipeline.registry.records import FieldAction

_TYPES: dict[str, type] = {
    "VARCHAR": str,
    "UBIGINT": int,
    "BIGINT": int,
    "DOUBLE": float,
    "BOOLEAN": bool,
    "ARRAY": list,
    "OBJECT": dict,
}

# What the engine's text of a value must look like for the engine to read it exactly. Longer
# numbers, exponents and deep arrays take the slower path; so do arrays with fractions, which the
# engine may print differently.
_SHORT_INTEGER_DIGITS = 18
_SIMPLE_FRACTION = r"-?[0-9]{1,17}\.[0-9]{1,17}"
_ODD_NUMBER_IN_ARRAY = r"[:,\[]-?(?:[0-9]{19}|[0-9]+[.eE])"
_BRACKETS_IN_ARRAY = 100

Types = Mapping[Node, type]
"""Type of the value at each node that is there; objects are ``dict``."""


class Extraction(NamedTuple):
    """How to flatten deliveries in which no place has values of two types."""

    structure: str
    """The argument of ``json_transform``."""

    columns: dict[str, str]
    """Expression by column name, over the result of the transformation."""

    guards: list[str]
    """Conditions that hold where the expressions are exact."""

    hashed: dict[str, type]
    """Columns whose values are to be hashed, and what they are before."""


class Objects:
    """The tree's objects, whose keys the engine is asked for."""

    def __init__(self, root: Node) -> None:
        self._objects = [node for node in _walk(root) if node is root or node.is_object]

    def keys_sql(self, text: str) -> str:
        """Return the expression for the keys of each object; null where it is no JSON."""
        return f"TRY(json_keys({text}, {_list(self._objects)}))"

    def nodes(self, found: Sequence[Sequence[str] | None] | None) -> frozenset[Node] | None:
        """Return the nodes that these keys of each object are; None where one is not plain."""
        if found is None:
            return None
        nodes: set[Node] = set()
        for node, keys in zip(self._objects, found, strict=True):
            if keys is None:
                continue
            plain = _plain_children(node)
            if len(set(keys)) < len(keys) or not plain.keys() >= set(keys):
                return None
            nodes.update(plain[key] for key in keys)
        return frozenset(nodes)


class Cluster:
    """Deliveries with nearly the same keys, which are asked for their types together.

    The engine looks for every path from the top of the text: to ask all deliveries for all nodes
    takes twice the time.
    """

    def __init__(self, nodes: frozenset[Node]) -> None:
        self.nodes = nodes
        self._least = len(nodes)

    def growth(self, nodes: frozenset[Node]) -> float:
        """Return how many times the fewest nodes that one has are asked of all, with `nodes`."""
        return len(self.nodes | nodes) / max(1, min(self._least, len(nodes)))

    def add(self, nodes: frozenset[Node]) -> None:
        """Ask for these, too."""
        self.nodes |= nodes
        self._least = min(self._least, len(nodes))

    @property
    def order(self) -> list[Node]:
        """The nodes as they are asked for."""
        return sorted(self.nodes, key=lambda node: node.path)

    def types_sql(self, text: str) -> str:
        """Return the expression for the type at each node."""
        return f"TRY(json_type({text}, {_list(self.order)}))" if self.nodes else "[]::VARCHAR[]"

    def types(self, found: Sequence[str | None] | None) -> Types | None:
        """Return the types of a plain shape; None when it is not plain."""
        if found is None:
            return None
        types = {}
        for node, name in zip(self.order, found, strict=True):
            if name is None or name == "NULL":
                continue
            if node.action is FieldAction.DROP and name != "OBJECT":
                continue
            value_type = _TYPES.get(name)
            if value_type is None or not _is_decided(node, value_type):
                return None
            types[node] = value_type
        return types if len(types) <= MAX_SURELY_FITTING else None


def extraction(types: Types, leaves: str) -> Extraction:
    """Return how to extract the values at nodes of these types; `leaves` names the result."""
    structure: dict[str, object] = {}
    columns: dict[str, str] = {}
    guards: list[str] = []
    hashed: dict[str, type] = {}
    for node, value_type in types.items():
        place = structure
        for key in node.path[:-1]:
            place = place.setdefault(key, {})  # type: ignore[assignment]  # objects only
        if value_type is dict:
            place.setdefault(node.path[-1], {})
            continue
        place[node.path[-1]] = "VARCHAR"
        leaf = ".".join([leaves, *(_identifier(key) for key in node.path)])
        column = node.columns[_column_type(node, value_type)]
        columns[column] = _cast(leaf, value_type)
        if node.action is FieldAction.HASH:
            hashed[column] = value_type
        guard = _guard(leaf, value_type)
        if guard is not None:
            guards.append(guard)
    transformed = _literal(json.dumps(_without_empty(structure)))
    return Extraction(transformed, columns, guards, hashed)


def _guard(leaf: str, value_type: type) -> str | None:
    if value_type is int:
        return f"length({leaf}) <= {_SHORT_INTEGER_DIGITS}"
    if value_type is float:
        return f"regexp_full_match({leaf}, '{_SIMPLE_FRACTION}')"
    if value_type is list:
        return (
            f"NOT regexp_matches({leaf}, '{_ODD_NUMBER_IN_ARRAY}') AND"
            f" CASE WHEN strlen({leaf}) > {MAX_TEXT_DEPTH} THEN"
            f" length({leaf}) - length(replace({leaf}, '[', '')) <= {_BRACKETS_IN_ARRAY} AND"
            f" length({leaf}) - length(replace({leaf}, '{{', '')) <= {_BRACKETS_IN_ARRAY}"
            " ELSE true END"
        )
    return None


def _cast(leaf: str, value_type: type) -> str:
    """Return the expression that turns a leaf's text into the value that it was."""
    if value_type is int:
        return f"TRY_CAST({leaf} AS BIGINT)"
    if value_type is float:
        return f"TRY_CAST({leaf} AS DOUBLE)"
    if value_type is bool:
        return f"{leaf} = 'true'"
    if value_type is list:
        # Looking for a text in it is fast, and nearly always enough to know.
        return (
            f"CASE WHEN contains({leaf}, '\"') OR trim({leaf}, '{EMPTY_JSON}') <> ''"
            f" THEN {leaf} END"
        )
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


def _is_decided(node: Node, value_type: type) -> bool:
    if value_type is dict:
        return node.is_object and len(node.path) < MAX_DEPTH
    return _column_type(node, value_type) in node.columns


def _column_type(node: Node, value_type: type) -> type:
    """Return what a value is when it gets to its column: a hash is text."""
    return str if node.action is FieldAction.HASH else value_type


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
