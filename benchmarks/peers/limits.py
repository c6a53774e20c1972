"""What no loader can exceed: parsing alone, and writing alone."""

import io
from collections.abc import Iterator

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv as pc
from psycopg import sql

from benchmarks.peers.inputs import Job, Outcome, landing_files, ready_rows
from benchmarks.stopwatch import Stopwatch

_SAMPLE = 20_000
_ROWS_A_PIECE = 10_000
_COPIED_BYTES = 1 << 20
_TYPES = {pa.int64(): "bigint", pa.float64(): "double precision", pa.bool_(): "boolean"}


def transform_json(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Parse the bodies of the landing files into known columns, in DuckDB, and drop the values."""
    return _transform(job, stopwatch, "SELECT count({})", "nothing is kept")


def transform_json_kept(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Do the same, and keep the values in a table in memory."""
    return _transform(job, stopwatch, "CREATE TEMP TABLE kept AS SELECT {}", "kept in memory")


def _transform(job: Job, stopwatch: Stopwatch, statement: str, how: str) -> Outcome:
    connection = duckdb.connect()
    files = [str(file) for file in landing_files(job.landing)]
    source = "read_parquet(?) WHERE event_id <> ''"
    valid = f"{source} AND json_valid(TRY(decode(body)))"
    structure = connection.execute(
        "SELECT json_group_structure(CAST(decode(body) AS JSON))"
        f" FROM (SELECT body FROM {valid} USING SAMPLE reservoir({_SAMPLE} ROWS) REPEATABLE (7))",
        [files],
    ).fetchall()[0][0]
    transformed = statement.format("json_transform(TRY(decode(body)), ?)")
    with stopwatch.running():
        # Of what is malformed, only that is left out which costs nothing to tell.
        found = connection.execute(f"{transformed} FROM {source}", [structure, files]).fetchall()
    return Outcome(found[0][0], f"DuckDB {duckdb.__version__}, one statement, {how}")


def copy_rows(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Copy ready rows, written as CSV on the way, into a table without any index."""
    return _copy(job, stopwatch, _pieces(ready_rows(job)), "rows made CSV on the way")


def copy_text(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Copy ready rows from a finished CSV text, likewise."""
    text = b"".join(_pieces(ready_rows(job)))
    pieces = (text[at : at + _COPIED_BYTES] for at in range(0, len(text), _COPIED_BYTES))
    return _copy(job, stopwatch, pieces, "from a finished CSV text")


def _copy(job: Job, stopwatch: Stopwatch, pieces: Iterator[bytes], how: str) -> Outcome:
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(
            sql.Identifier(field.name),
            sql.SQL(
                "timestamptz"
                if pa.types.is_timestamp(field.type)
                else _TYPES.get(field.type, "text")
            ),
        )
        for field in ready_rows(job).schema
    )
    with psycopg.connect(job.warehouse) as connection:
        connection.execute(sql.SQL("CREATE TABLE data ({})").format(columns))
        connection.commit()
        with stopwatch.running():
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY data FROM STDIN (FORMAT csv)") as copy,
            ):
                for piece in pieces:
                    copy.write(piece)
            connection.commit()
        found = connection.execute("SELECT count(*) FROM data").fetchone()
    rows = found[0] if found else 0
    return Outcome(rows, f"one COPY into a logged table without index, {how}")


def _pieces(rows: pa.Table) -> Iterator[bytes]:
    options = pc.WriteOptions(include_header=False, quoting_style="all_valid")
    for batch in rows.to_batches(max_chunksize=_ROWS_A_PIECE):
        piece = io.BytesIO()
        pc.write_csv(batch, piece, options)
        yield piece.getvalue()
