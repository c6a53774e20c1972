"""The embedded DuckDB engine that holds a batch's deliveries while they are staged.

It is a parser in memory, whatever the warehouse; it never opens a warehouse's file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.loading.shapes import HAZARDS


class Source(NamedTuple):
    """A landing file to read, but for offsets that are loaded already."""

    path: Path
    writer: str
    loaded: OffsetSet | None


class Engine:
    """Holds the table ``raw``, one row per delivery.

    Besides the landed columns it has ``text``, the decoded body, where the bulk path may read it:
    valid JSON without anything that the engine would read differently from the exact reader.
    """

    def __init__(self) -> None:
        self._connection = duckdb.connect(
            # Nothing is fetched from anywhere; and order is made where it matters.
            config={"autoinstall_known_extensions": False, "preserve_insertion_order": False}
        )

    def close(self) -> None:
        """Release the memory."""
        self._connection.close()

    def read(self, sources: Sequence[Source]) -> None:
        """Fill ``raw``.

        Raises:
            duckdb.Error: a file cannot be read.
        """
        self.execute(
            "CREATE OR REPLACE TEMP TABLE loaded (writer VARCHAR, first BIGINT, last BIGINT)"
        )
        loaded = [
            (source.writer, *interval) for source in sources for interval in source.loaded or ()
        ]
        if loaded:
            self._connection.executemany("INSERT INTO loaded VALUES (?, ?, ?)", loaded)
        self.execute(
            "CREATE OR REPLACE TEMP TABLE raw AS SELECT * EXCLUDE (decoded),"
            " CASE WHEN CASE WHEN json_valid(decoded)"
            f"  THEN NOT regexp_matches(decoded, '{HAZARDS}') END THEN decoded END AS text"
            ' FROM (SELECT writer, "offset", _sdc_sequence, received_at, content_encoding, body,'
            "   CASE WHEN content_encoding IS NULL THEN TRY(decode(body)) END AS decoded"
            "  FROM read_parquet(?, hive_partitioning = false)) AS landed"
            " WHERE NOT EXISTS (FROM loaded WHERE loaded.writer = landed.writer"
            '  AND landed."offset" BETWEEN first AND last)',
            [[str(source.path) for source in sources]],
        )

    def deliveries(
        self, where: str = "", parameters: Sequence[object] = ()
    ) -> list[tuple[Any, ...]]:
        """Return deliveries in the order in which later ones win (design C5).

        Each is (writer, offset, sequence, receipt in microseconds, content encoding, body).
        """
        return self.rows(
            'SELECT writer, "offset", _sdc_sequence, epoch_us(received_at), content_encoding,'
            f' body FROM raw {where} ORDER BY _sdc_sequence, writer, "offset"',
            parameters,
        )

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

    def table(self, sql: str, **arrow: pa.Table) -> pa.Table:
        """Return the result of a query that may name the given Arrow tables."""
        for name, table in arrow.items():
            self._connection.register(name, table)
        try:
            return self._connection.sql(sql).to_arrow_table()
        finally:
            for name in arrow:
                self._connection.unregister(name)


def quoted(name: str) -> str:
    """Quote an identifier."""
    return '"' + name.replace('"', '""') + '"'
