"""Rows as our loader leaves them, in an Arrow file: what peers and limits get that parse nothing.

A process of its own, ``python -m benchmarks.ready_rows``: it gives back the memory it takes.
"""

import argparse
from pathlib import Path

import duckdb
import pyarrow as pa

from benchmarks.event_pool import DUPLICATES
from customerio_pipeline.warehouse.duckdb_tables import KEY, quoted

_LATER_NS = 120 * 10**9
_ROWS_A_BATCH = 50_000


def write(file: Path, schema: str, rows: int, ready: Path) -> None:
    """Write the first `rows` of a DuckDB warehouse, as many of them twice as events come twice.

    JSON columns are text, and our key for joins is left out: each side gets what it can take.
    """
    with duckdb.connect(file, read_only=True) as connection:
        table = f"{quoted(schema)}.data"
        columns = connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns()"
            " WHERE schema_name = ? AND table_name = 'data' AND column_name <> ?",
            [schema, KEY],
        ).fetchall()
        selected = ", ".join(
            f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" if kind == "JSON" else quoted(name)
            for name, kind in columns
        )
        again = f"SELECT * REPLACE (_sdc_sequence + {_LATER_NS} AS _sdc_sequence) FROM once"
        share = f"md5_number_lower(event_id) % 1000 < {DUPLICATES * 1000:.0f}"
        reader = connection.sql(
            f"WITH once AS (SELECT {selected} FROM {table} ORDER BY _sdc_sequence LIMIT {rows})"
            f" SELECT * FROM (FROM once UNION ALL {again} WHERE {share})"
            f" ORDER BY _sdc_sequence LIMIT {rows}"
        ).to_arrow_reader(_ROWS_A_BATCH)
        with pa.OSFile(str(ready), "wb") as sink, pa.ipc.new_file(sink, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("schema")
    parser.add_argument("rows", type=int)
    parser.add_argument("ready", type=Path)
    write(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
