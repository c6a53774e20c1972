"""Flattening in bulk: judge the shapes of a batch, learn the new ones, extract the plain ones."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from customerio_pipeline.loading.decoding import JsonObject, Rejected, read_events
from customerio_pipeline.loading.engine import Engine, quoted
from customerio_pipeline.loading.flattening import Flattener, Node
from customerio_pipeline.loading.shapes import Cluster, Objects, Types, extraction

_MAX_ROUNDS = 20
_LEARNED_A_ROUND = 1000
_WORTH_A_ROUND = 0.02
"""Share of undecided deliveries up to which they are flattened one by one."""

_MAX_CLUSTERS = 6
_MAX_GROWTH = 1.7
"""Times the nodes of the smallest shape of a cluster up to which all are asked for."""

_MAX_GROUPS = 4
_WORTH_A_GROUP = 0.002
"""Share of deliveries below which planning another statement is not worth it."""

ROW_ID = "_sdc_row_id"
"""Row id in ``raw``; like all of ours named as no column of an event can be."""

ShapeKey = tuple[int, int]
"""Hashes of a shape's keys and of its types."""


class _Group:
    """Plain shapes in which no place has values of two types."""

    def __init__(self) -> None:
        self.types: dict[Node, type] = {}
        self.deliveries = 0

    def takes(self, types: Types) -> bool:
        """Tell whether a shape can be extracted together with those that are here."""
        return all(self.types.get(node, kind) is kind for node, kind in types.items())


class BulkFlattener:
    """Flattens what the engine holds in ``raw``.

    What a column is called and which type it has is decided in the order of receipt, as when
    flattening one by one: only deliveries that are not plain can decide anything, and of these
    the earliest are learned from first.
    """

    def __init__(
        self, engine: Engine, flattener: Flattener, learn: Callable[[JsonObject], object]
    ) -> None:
        """Begin with what `flattener` knows; `learn` flattens an event with it."""
        self._engine = engine
        self._flattener = flattener
        self._learn_from = learn

    def flatten(self) -> list[pa.Table]:
        """Flatten every delivery of a plain shape but those superseded by another one of them.

        Returns tables with the columns of `data` and `ROW_ID`. Leaves in the engine the table
        ``superseded`` with the row ids, ``n``, of those left out. A delivery that is in neither
        must be flattened one by one.

        Raises:
            duckdb.Error: the engine meets something that the shapes did not show.
        """
        groups: list[_Group] = []
        self._engine.execute("CREATE OR REPLACE TEMP TABLE chosen (n BIGINT, part INTEGER)")
        learned: tuple[object, ...] = (-1, "", -1)
        if not self._flattener.root.children:
            self._engine.execute(
                "CREATE OR REPLACE TEMP TABLE undecided AS SELECT rowid AS n FROM raw"
            )
            learned = self._learn(learned)
        total = self._shape("text IS NOT NULL")
        for _ in range(_MAX_ROUNDS):
            self._judge(groups)
            undecided = self._engine.rows("SELECT count(*) FROM undecided")[0][0]
            if undecided <= _WORTH_A_ROUND * total:
                break
            version = self._flattener.version
            learned = self._learn(learned)
            if self._flattener.version != version:
                self._shape("rowid IN (SELECT n FROM undecided)")
            elif not learned:
                break
        worth = _WORTH_A_GROUP * total
        kept = [at for at, group in enumerate(groups) if group.deliveries >= worth]
        self._supersede(kept)
        return [self._extract(at, groups[at].types) for at in kept]

    def _shape(self, condition: str) -> int:
        """Ask for the shape of some deliveries; return how many there are."""
        objects = Objects(self._flattener.root)
        keys_sql = objects.keys_sql("text")
        passes = " UNION ALL ".join(
            f"SELECT rowid AS n, hash({keys_sql}) AS keys FROM raw WHERE {condition} AND {half}"
            for half in self._engine.halves()
        )
        self._engine.execute(f"CREATE OR REPLACE TEMP TABLE keyed AS {passes}")
        counts = {
            keys: (first, count)
            for keys, first, count in self._engine.rows(
                "SELECT keys, min(n), count(*) FROM keyed GROUP BY keys"
            )
        }
        found = dict(
            self._engine.rows(
                f"SELECT rowid, {keys_sql} FROM raw WHERE rowid IN (SELECT unnest(?))",
                [[first for first, _ in counts.values()]],
            )
        )
        clustered: list[tuple[int, int]] = []
        self._clusters: list[Cluster] = []
        for keys in sorted(counts, key=lambda keys: counts[keys][1], reverse=True):
            nodes = objects.nodes(found[counts[keys][0]])
            if nodes is not None:
                clustered.append((keys, self._cluster(nodes)))
        self._ask_types(clustered)
        return sum(count for _, count in counts.values())

    def _cluster(self, nodes: frozenset[Node]) -> int:
        """Return the number of the cluster that these nodes fit best."""
        clusters = self._clusters
        best = min(
            range(len(clusters)), key=lambda at: clusters[at].growth(nodes), default=len(clusters)
        )
        if best == len(clusters) or (
            clusters[best].growth(nodes) > _MAX_GROWTH and len(clusters) < _MAX_CLUSTERS
        ):
            clusters.append(Cluster(nodes))
            return len(clusters) - 1
        clusters[best].add(nodes)
        return best

    def _ask_types(self, clustered: Sequence[tuple[int, int]]) -> None:
        """Make ``shaped`` of the deliveries whose keys are in a cluster."""
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE clustered AS"
            " SELECT n, keys, cluster FROM keyed JOIN"
            " (SELECT unnest(?) AS keys, unnest(?) AS cluster) USING (keys)",
            [[row[at] for row in clustered] for at in range(2)],
        )
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE shaped"
            " (n BIGINT, keys UBIGINT, types UBIGINT, cluster BIGINT)"
        )
        halves = self._engine.halves()
        for at, cluster in enumerate(self._clusters):
            passes = " UNION ALL ".join(
                f"SELECT n, keys, hash({cluster.types_sql('text')}), {at}"
                " FROM raw JOIN clustered ON raw.rowid = clustered.n"
                f" WHERE cluster = {at} AND {half}"
                for half in halves
            )
            self._engine.execute(f"INSERT INTO shaped {passes}")

    def _judge(self, groups: list[_Group]) -> None:
        """Put the deliveries of plain shapes into groups, the others into ``undecided``."""
        chosen: list[tuple[int, int, int]] = []
        counts, verdicts = self._verdicts()
        for key in sorted(counts, key=counts.__getitem__, reverse=True):
            types = verdicts[key]
            if types is None:
                continue
            part = next((at for at, group in enumerate(groups) if group.takes(types)), len(groups))
            if part == _MAX_GROUPS:
                continue
            if part == len(groups):
                groups.append(_Group())
            groups[part].types.update(types)
            groups[part].deliveries += counts[key]
            chosen.append((part, *key))
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE decided AS"
            " SELECT unnest(?) AS part, unnest(?) AS keys, unnest(?) AS types",
            [[row[at] for row in chosen] for at in range(3)],
        )
        self._engine.execute(
            "INSERT INTO chosen SELECT n, part FROM shaped JOIN decided USING (keys, types)"
        )
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE undecided AS"
            " SELECT n FROM keyed ANTI JOIN chosen USING (n)"
        )

    def _verdicts(self) -> tuple[dict[ShapeKey, int], dict[ShapeKey, Types | None]]:
        """Return the deliveries of each shape, and the types of those that are plain."""
        counts: dict[ShapeKey, int] = {}
        firsts: defaultdict[int, dict[int, ShapeKey]] = defaultdict(dict)
        for cluster, keys, types, first, count in self._engine.rows(
            "SELECT cluster, keys, types, min(n), count(*) FROM shaped GROUP BY ALL"
        ):
            counts[keys, types] = count
            firsts[cluster][first] = keys, types
        verdicts = {
            firsts[at][n]: cluster.types(found)
            for at, cluster in enumerate(self._clusters)
            for n, found in self._engine.rows(
                f"SELECT rowid, {cluster.types_sql('text')} FROM raw"
                " WHERE rowid IN (SELECT unnest(?))",
                [list(firsts[at])],
            )
        }
        return counts, verdicts

    def _learn(self, learned: Sequence[object]) -> tuple[object, ...]:
        """Flatten the next undecided deliveries for what they teach, in the order of receipt.

        Returns the order of the last one; empty when there was none after `learned`.
        """
        order = '(_sdc_sequence, writer, "offset")'
        found = sorted(
            self._engine.deliveries(
                "WHERE (text IS NULL OR rowid IN (SELECT n FROM undecided))"
                f" AND {order} > (?, ?, ?) ORDER BY {order} LIMIT {_LEARNED_A_ROUND}",
                learned,
            )
        )
        for delivery in found:
            for event in read_events(delivery.body, delivery.content_encoding):
                if not isinstance(event, Rejected):
                    self._learn_from(event)
        return found[-1][:3] if found else ()

    def _supersede(self, parts: Sequence[int]) -> None:
        """Note which of the deliveries in these groups are superseded by others."""
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE superseded AS"
            " WITH candidates AS (SELECT rowid AS n, event_id, _sdc_sequence, writer, "
            '  "offset" FROM raw WHERE rowid IN'
            "  (SELECT n FROM chosen WHERE part IN (SELECT unnest(?))))"
            " SELECT n FROM (SELECT n, row_number() OVER (PARTITION BY event_id"
            '  ORDER BY _sdc_sequence DESC, writer DESC, "offset" DESC) AS place'
            "  FROM candidates SEMI JOIN (SELECT event_id FROM candidates"
            "   GROUP BY event_id HAVING count(*) > 1) USING (event_id))"
            " WHERE place > 1",
            [list(parts)],
        )

    def _extract(self, part: int, types: Types) -> pa.Table:
        structure, columns, guards, hashed = extraction(types, "_sdc_leaves")
        selected = "".join(f"{sql} AS {quoted(name)}, " for name, sql in columns.items())
        is_exact = " AND ".join(
            [
                "_sdc_leaves.event_id = _sdc_event_id",
                *(f"({guard}) IS NOT FALSE" for guard in guards),
            ]
        )
        # Above a union, so that the engine transforms once and not again for each condition.
        transformed = " UNION ALL ".join(
            f"SELECT rowid AS {ROW_ID}, event_id AS _sdc_event_id,"
            "  received_at AS _sdc_received_at,"
            '  _sdc_sequence, writer AS _sdc_writer, "offset" AS _sdc_offset,'
            f"  json_transform(text, {structure}) AS _sdc_leaves FROM raw"
            f"  WHERE rowid IN (SELECT n FROM chosen WHERE part = {part})"
            f"  AND rowid NOT IN (SELECT n FROM superseded) AND {half}"
            for half in self._engine.halves()
        )
        extracted = self._engine.table(
            f"SELECT {ROW_ID}, {selected}_sdc_received_at, _sdc_sequence, _sdc_writer, _sdc_offset,"
            f" {is_exact} AS _sdc_is_exact FROM ({transformed})"
        )
        exact = extracted["_sdc_is_exact"]
        extracted = extracted.drop_columns(["_sdc_is_exact"])
        if not pc.all(exact).as_py():
            extracted = extracted.filter(exact)
        for name, value_type in hashed.items():
            values = self._flattener.masking.hashed_column(extracted[name], value_type)
            extracted = extracted.set_column(extracted.column_names.index(name), name, values)
        return extracted
