"""Flattening in bulk: judge the shapes of a batch, learn the new ones, extract the plain ones."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from customerio_pipeline.loading.decoding import Rejected, read_events
from customerio_pipeline.loading.engine import Engine, quoted
from customerio_pipeline.loading.flattening import Flattener
from customerio_pipeline.loading.shapes import Paths, Shape, Types

_LEARNING_ROUNDS = 3
_WORTH_A_ROUND = 0.05
"""Share of deliveries with unknown shapes above which another pass over the batch is cheaper than
flattening them one by one."""

_SAMPLE = 1000
"""Deliveries, spread over the first batch, from which most shapes are learned at once."""

_MAX_GROUPS = 4
_WORTH_A_GROUP = 0.002
"""Share of deliveries below which planning another statement is not worth it."""

ShapeKey = tuple[int, int]
"""Hashes of a shape's keys and of its types."""


class BulkFlattener:
    """Flattens what the engine holds in ``raw``; its verdicts on shapes stay warm."""

    def __init__(self, engine: Engine, flattener: Flattener) -> None:
        self._engine = engine
        self._flattener = flattener
        self._verdicts: dict[ShapeKey, Types | None] = {}
        self._verdicts_version = -1

    def flatten(self) -> list[pa.Table]:
        """Flatten every delivery of a plain shape but those superseded by another one of them.

        Returns tables with the columns of `data` and ``n``, the row id in ``raw``. Leaves in the
        engine the table ``superseded`` with the ``n`` of those left out. A delivery that is in
        neither must be flattened one by one.

        Raises:
            duckdb.Error: the engine meets something that the shapes did not show.
        """
        if not self._verdicts:
            self._learn(
                "SELECT rowid FROM raw"
                f" WHERE rowid % (SELECT count(*) // {_SAMPLE} + 1 FROM raw) = 0"
            )
        for _ in range(_LEARNING_ROUNDS):
            version = self._flattener.version
            paths = Paths(self._flattener.root)
            counts, unknown, share = self._judge(paths)
            if share <= _WORTH_A_ROUND:
                break
            self._learn("SELECT unnest(?)", [unknown])
            if self._flattener.version == version:
                break
        groups = self._group(counts)
        self._choose(groups)
        return [self._extract(paths, at, types) for at, (types, _) in enumerate(groups)]

    def _judge(self, paths: Paths) -> tuple[dict[ShapeKey, int], list[int], float]:
        """Judge every shape new to this process.

        Returns the deliveries of each shape in this batch, the first delivery of each new one that
        is not plain, and the share that these have.
        """
        if self._verdicts_version != self._flattener.version:
            self._verdicts.clear()
            self._verdicts_version = self._flattener.version
        keys_sql, types_sql = paths.keys_sql("text"), paths.types_sql("text")
        passes = " UNION ALL ".join(
            f"SELECT rowid AS n, hash({keys_sql}) AS keys, hash({types_sql}) AS types"
            f" FROM raw WHERE text IS NOT NULL AND {half}"
            for half in self._engine.halves()
        )
        self._engine.execute(f"CREATE OR REPLACE TEMP TABLE shaped AS {passes}")
        counts: dict[ShapeKey, int] = {}
        fresh: dict[int, ShapeKey] = {}
        for keys, types, first, count in self._engine.rows(
            "SELECT keys, types, min(n), count(*) FROM shaped GROUP BY ALL"
        ):
            counts[keys, types] = count
            if (keys, types) not in self._verdicts:
                fresh[first] = keys, types
        unknown = []
        unknown_deliveries = 0
        for n, keys, types in self._engine.rows(
            f"SELECT rowid, {keys_sql}, {types_sql} FROM raw WHERE rowid IN (SELECT unnest(?))",
            [list(fresh)],
        ):
            key = fresh[n]
            plain = paths.types(Shape(keys, types)) if keys and types else None
            self._verdicts[key] = plain
            if plain is None:
                unknown.append(n)
                unknown_deliveries += counts[key]
        return counts, unknown, unknown_deliveries / max(1, sum(counts.values()))

    def _group(self, counts: dict[ShapeKey, int]) -> list[tuple[Types, list[ShapeKey]]]:
        """Put plain shapes together in which no place has values of two types."""
        groups: list[tuple[dict[int, type], list[ShapeKey]]] = []
        for key in sorted(counts, key=counts.__getitem__, reverse=True):
            types = self._verdicts[key]
            if types is None:
                continue
            for merged, keys in groups:
                if all(merged.get(at, kind) is kind for at, kind in types.items()):
                    merged.update(types)
                    keys.append(key)
                    break
            else:
                groups.append((dict(types), [key]))
        worth = _WORTH_A_GROUP * sum(counts.values())
        return [
            (types, keys)
            for types, keys in groups[:_MAX_GROUPS]
            if sum(counts[key] for key in keys) >= worth
        ]

    def _choose(self, groups: Sequence[tuple[Types, list[ShapeKey]]]) -> None:
        """Note which group each delivery belongs to, and which deliveries are superseded."""
        chosen = [(at, *key) for at, (_, keys) in enumerate(groups) for key in keys]
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE chosen AS SELECT n, part FROM shaped JOIN"
            " (SELECT unnest(?) AS part, unnest(?) AS keys, unnest(?) AS types)"
            " USING (keys, types)",
            [[part[at] for part in chosen] for at in range(3)],
        )
        self._engine.execute(
            "CREATE OR REPLACE TEMP TABLE superseded AS"
            " WITH candidates AS (SELECT rowid AS n, event_id, _sdc_sequence, writer,"
            '  "offset" FROM raw WHERE rowid IN (SELECT n FROM chosen))'
            " SELECT n FROM (SELECT n, row_number() OVER (PARTITION BY event_id"
            '  ORDER BY _sdc_sequence DESC, writer DESC, "offset" DESC) AS place'
            "  FROM candidates SEMI JOIN (SELECT event_id FROM candidates"
            "   GROUP BY event_id HAVING count(*) > 1) USING (event_id))"
            " WHERE place > 1"
        )

    def _extract(self, paths: Paths, part: int, types: Types) -> pa.Table:
        extraction = paths.extraction(types, "leaves")
        selected = "".join(f"{sql} AS {quoted(name)}, " for name, sql in extraction.columns.items())
        guards = " AND ".join(
            [
                "leaves.event_id = landed_id",
                *(f"({condition}) IS NOT FALSE" for condition in extraction.guards),
            ]
        )
        passes = " UNION ALL ".join(
            f"SELECT n, {selected}_sdc_received_at, _sdc_sequence, _sdc_writer, _sdc_offset,"
            f" {guards} AS is_exact"
            " FROM (SELECT rowid AS n, event_id AS landed_id, received_at AS _sdc_received_at,"
            f'  _sdc_sequence, writer AS _sdc_writer, "offset" AS _sdc_offset,'
            f"  json_transform(text, {extraction.structure}) AS leaves FROM raw"
            f"  WHERE rowid IN (SELECT n FROM chosen WHERE part = {part})"
            f"  AND rowid NOT IN (SELECT n FROM superseded) AND {half})"
            for half in self._engine.halves()
        )
        # As a filter of the statement the guards would make the engine transform once for each.
        extracted = self._engine.table(passes)
        is_exact = extracted["is_exact"]
        extracted = extracted.drop_columns(["is_exact"])
        return extracted if pc.all(is_exact).as_py() else extracted.filter(is_exact)

    def _learn(self, row_ids: str, parameters: Sequence[object] = ()) -> None:
        """Flatten a few deliveries for what they teach, in the order of receipt."""
        found = self._engine.deliveries(f"WHERE rowid IN ({row_ids})", parameters)
        for delivery in sorted(found):
            for event in read_events(delivery.body, delivery.content_encoding):
                if not isinstance(event, Rejected):
                    self._flattener.row(event)
