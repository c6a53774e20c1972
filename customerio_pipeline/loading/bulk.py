"""Flattening in bulk: judge the shapes of a batch, learn the new ones, extract the plain ones."""

from collections.abc import Sequence

from customerio_pipeline.loading.decoding import MAX_EVENT_ID_LENGTH, Rejected, read_events
from customerio_pipeline.loading.engine import Engine, quoted
from customerio_pipeline.loading.flattening import Flattener
from customerio_pipeline.loading.shapes import Paths, Shape

_LEARNING_ROUNDS = 3
_WORTH_A_ROUND = 0.05
"""Share of deliveries with unknown shapes above which another pass over the batch is cheaper than
flattening them one by one."""

_SAMPLE = 1000
"""Deliveries, spread over the first batch, from which most shapes are learned at once."""

ShapeKey = tuple[int, int]
"""Hashes of a shape's keys and of its types."""


class BulkFlattener:
    """Fills the engine's table ``bulk`` from ``raw``; its verdicts on shapes stay warm."""

    def __init__(self, engine: Engine, flattener: Flattener) -> None:
        self._engine = engine
        self._flattener = flattener
        self._verdicts: dict[ShapeKey, Shape | None] = {}
        self._verdicts_version = -1

    def flatten(self) -> list[str]:
        """Flatten every delivery of a plain shape; return the columns of ``bulk``.

        ``bulk`` also has ``n``, the row id in ``raw``. A delivery that is not in it must be
        flattened one by one.

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
            unknown, share = self._judge(paths)
            if share <= _WORTH_A_ROUND:
                break
            self._learn("SELECT unnest(?)", [unknown])
            if self._flattener.version == version:
                break
        return self._extract(paths)

    def _judge(self, paths: Paths) -> tuple[list[int], float]:
        """Judge every shape new to this process.

        Returns the first delivery of each that is not plain, and the share that they all have.
        """
        if self._verdicts_version != self._flattener.version:
            self._verdicts.clear()
            self._verdicts_version = self._flattener.version
        keys_sql, types_sql = paths.keys_sql("text"), paths.types_sql("text")
        passes = " UNION ALL ".join(
            f"SELECT rowid AS n, _sdc_sequence, hash({keys_sql}) AS keys,"
            f" hash({types_sql}) AS types FROM raw WHERE text IS NOT NULL AND {half}"
            for half in self._engine.halves()
        )
        self._engine.execute(f"CREATE OR REPLACE TEMP TABLE shaped AS {passes}")
        fresh: dict[int, tuple[ShapeKey, int]] = {}
        deliveries = 0
        for keys, types, first, count in self._engine.rows(
            "SELECT keys, types, arg_min(n, _sdc_sequence), count(*) FROM shaped GROUP BY ALL"
        ):
            deliveries += count
            if (keys, types) not in self._verdicts:
                fresh[first] = (keys, types), count
        unknown = []
        unknown_deliveries = 0
        for n, keys, types in self._engine.rows(
            f"SELECT rowid, {keys_sql}, {types_sql} FROM raw WHERE rowid IN (SELECT unnest(?))",
            [list(fresh)],
        ):
            shape = Shape(keys, types)
            is_plain = paths.is_plain(shape)
            key, count = fresh[n]
            self._verdicts[key] = shape if is_plain else None
            if not is_plain:
                unknown.append(n)
                unknown_deliveries += count
        return unknown, unknown_deliveries / max(1, deliveries)

    def _extract(self, paths: Paths) -> list[str]:
        verdicts = {
            key: self._verdicts.get(key)
            for key in self._engine.rows("SELECT DISTINCT keys, types FROM shaped")
        }
        plain = {key: shape for key, shape in verdicts.items() if shape is not None}
        columns = paths.columns_sql(list(plain.values()), "text", "leaves")
        event_id = columns.get("event_id", "NULL")
        selected = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
        chosen = "text IS NOT NULL"
        if len(plain) < len(verdicts):
            self._engine.execute(
                "CREATE OR REPLACE TEMP TABLE chosen AS SELECT n FROM shaped SEMI JOIN"
                " (SELECT unnest(?) AS keys, unnest(?) AS types) USING (keys, types)",
                [[keys for keys, _ in plain], [types for _, types in plain]],
            )
            chosen = "rowid IN (SELECT n FROM chosen)"
        passes = " UNION ALL ".join(
            f"SELECT n, {selected or 'NULL AS event_id'},"
            " _sdc_received_at, _sdc_sequence, _sdc_writer, _sdc_offset"
            " FROM (SELECT rowid AS n, text, received_at AS _sdc_received_at, _sdc_sequence,"
            f'  writer AS _sdc_writer, "offset" AS _sdc_offset, {paths.transform_sql("text")}'
            f"  AS leaves FROM raw WHERE {chosen} AND {half})"
            f" WHERE {event_id} <> '' AND length({event_id}) <= {MAX_EVENT_ID_LENGTH}"
            for half in self._engine.halves()
        )
        self._engine.execute(f"CREATE OR REPLACE TEMP TABLE bulk AS {passes}")
        return list(columns)

    def _learn(self, row_ids: str, parameters: Sequence[object] = ()) -> None:
        """Flatten a few deliveries for what they teach, in the order of receipt."""
        found = self._engine.deliveries(f"WHERE rowid IN ({row_ids})", parameters)
        for _, _, _, _, encoding, body in found:
            for event in read_events(body, encoding):
                if not isinstance(event, Rejected):
                    self._flattener.row(event)
