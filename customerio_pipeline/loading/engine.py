"""The embedded DuckDB engine that holds a batch's deliveries while they are staged.

It is a parser in memory, whatever the warehouse; it never opens a warehouse's file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.reading import HeldDelivery, LandedDelivery
from customerio_pipeline.landing.signatures import ERASED, HELD_VERDICTS
from customerio_pipeline.loading.decoding import (
    MAX_EVENT_ID_BYTES,
    MAX_EVENT_ID_LENGTH,
    read_events,
)
from customerio_pipeline.loading.erased import Erased

_PAGE_ROWS = 10_000


class Source(NamedTuple):
    """A landing file to read, but for offsets that are loaded already."""

    path: Path
    writer: str
    deliveries: int
    """As many as its name promises."""

    loaded: OffsetSet
    """Those of its offsets."""

    released: OffsetSet
    """Those of its offsets that are loaded although their verdict holds them back."""


class Engine:
    """Holds the table ``raw``, one row per delivery.

    Besides the landed columns it has ``text``, the decoded body, where the bulk path may read it:
    one JSON object whose ``event_id`` was read before landing, by a strict reader, and in which no
    control character is escaped. Elsewhere ``body`` has the bytes.
    """

    def __init__(self) -> None:
        self.held: list[HeldDelivery] = []
        """What the last `read` left out of ``raw``, because it is to be held."""

        self.erased = 0
        """Deliveries that it left out because nothing is left of them."""

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        # Made by the first great batch: a small load is done before it would have begun.
        return duckdb.connect(
            # Nothing is fetched from anywhere; and order is made where it matters.
            config={"autoinstall_known_extensions": False, "preserve_insertion_order": False}
        )

    def close(self) -> None:
        """Release the memory."""
        if "_connection" in self.__dict__:
            self._connection.close()

    def read(self, sources: Sequence[Source]) -> None:
        """Fill ``raw``.

        Raises:
            duckdb.Error: a file cannot be read.
        """
        is_loaded = self._among("loaded", [(source.writer, source.loaded) for source in sources])
        is_released = self._among(
            "released", [(source.writer, source.released) for source in sources]
        )
        verdicts = ", ".join(f"'{verdict}'" for verdict in HELD_VERDICTS)
        is_held = f"(signature IN ({verdicts}) AND NOT {is_released})"
        paths = [str(source.path) for source in sources]
        decoded = (
            "CASE WHEN content_encoding IS NULL AND event_id <> ''"
            f" AND length(event_id) <= {MAX_EVENT_ID_LENGTH}"
            f" AND strlen(event_id) <= {MAX_EVENT_ID_BYTES} THEN TRY(decode(body)) END"
        )
        plain = (
            r"(NOT contains(decoded, '\u00')"
            r" OR NOT contains(decoded, '\u000') AND NOT contains(decoded, '\u001'))"
        )
        self.execute(
            "CREATE OR REPLACE TEMP TABLE raw AS SELECT * EXCLUDE (decoded, body),"
            f" CASE WHEN {plain} THEN decoded END AS text,"
            f" CASE WHEN {plain} THEN NULL ELSE body END AS body"
            ' FROM (SELECT writer, "offset", _sdc_sequence, received_at, content_encoding,'
            f"   event_id, body, {decoded} AS decoded"
            "  FROM read_parquet(?, hive_partitioning = false) AS landed"
            f"  WHERE NOT {is_loaded} AND NOT {is_held} AND signature <> '{ERASED}')",
            [paths],
        )
        self.held = [
            HeldDelivery(*row)
            for row in self.rows(
                'SELECT writer, "offset", signature, url_id, _sdc_sequence, epoch_us(received_at)'
                " FROM read_parquet(?, hive_partitioning = false) AS landed"
                f" WHERE NOT {is_loaded} AND {is_held}",
                [paths],
            )
        ]
        # An erasure may write a file anew between the two looks into it.
        [(self.erased,)] = self.rows(
            "SELECT count(*) FROM read_parquet(?, hive_partitioning = false) AS landed"
            f" WHERE NOT {is_loaded} AND signature = '{ERASED}'"
            ' AND (writer, "offset") NOT IN (SELECT (writer, "offset") FROM raw)',
            [paths],
        )

    def leave_out(self, erased: Erased) -> set[tuple[str, int]]:
        """Remove from ``raw`` those with ``text`` whose event was erased; return which."""
        rows = self._connection.execute(
            'SELECT rowid, writer, "offset", event_id, epoch_us(received_at),'
            # Only what happened, or came, up to then is looked into.
            " CASE WHEN coalesce(TRY_CAST(text ->> '$.timestamp' AS DOUBLE) * 1e9 <= ?, true)"
            "  OR epoch_us(received_at) * 1000 <= ? THEN text END"
            " FROM raw WHERE text IS NOT NULL",
            [erased.last_ns, erased.last_ns],
        )
        gone = []
        places = set()
        while page := rows.fetchmany(_PAGE_ROWS):
            for row, writer, offset, event_id, received_us, text in page:
                if erased.has_event(event_id) or (
                    text is not None
                    and erased.covers(read_events(text.encode(), None)[0], received_us)
                ):
                    gone.append(row)
                    places.add((writer, offset))
        if gone:
            self.execute("DELETE FROM raw WHERE rowid IN (SELECT unnest(?))", [gone])
        return places

    def _among(self, name: str, offsets: Iterable[tuple[str, OffsetSet]]) -> str:
        """Return the condition that a row of ``landed`` is among `offsets`, those of a writer."""
        self.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} (writer VARCHAR, first BIGINT, last BIGINT)"
        )
        rows = [(writer, *interval) for writer, those in offsets for interval in those]
        if not rows:
            return "false"
        self._connection.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
        return (
            f"EXISTS (FROM {name} WHERE {name}.writer = landed.writer"
            '  AND landed."offset" BETWEEN first AND last)'
        )

    def deliveries(
        self, where: str = "", parameters: Sequence[object] = (), **arrow: pa.Table
    ) -> list[LandedDelivery]:
        """Return deliveries; the condition `where` may name the given Arrow tables."""
        with self._registered(arrow):
            found = self.rows(
                'SELECT _sdc_sequence, writer, "offset", epoch_us(received_at), content_encoding,'
                f" coalesce(body, encode(text)) FROM raw {where}",
                parameters,
            )
        return [LandedDelivery(*row) for row in found]

    def halves(self) -> tuple[str, str]:
        """Return conditions that split ``raw`` in two.

        A table of up to 122,880 rows is scanned by one thread, the branches of a UNION by one each.
        """
        half = self.rows("SELECT count(*) // 2 FROM raw")[0][0]
        return f"raw.rowid < {half}", f"raw.rowid >= {half}"

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement for its effect."""
        self._connection.execute(sql, list(parameters))

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self._connection.execute(sql, list(parameters)).fetchall()

    def table(self, sql: str) -> pa.Table:
        """Return the result of a query."""
        return self._connection.sql(sql).to_arrow_table()

    @contextmanager
    def _registered(self, arrow: Mapping[str, pa.Table]) -> Iterator[None]:
        for name, table in arrow.items():
            self._connection.register(name, table)
        try:
            yield
        finally:
            for name in arrow:
                self._connection.unregister(name)


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'
