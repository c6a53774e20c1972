"""pandas and SQL, as one writes it by hand: json_normalize, then an upsert a batch."""

import io
import json
from typing import Any

import duckdb
import psycopg
from psycopg import sql

from benchmarks.peers.inputs import Event, Job, Outcome, pages
from benchmarks.stopwatch import Stopwatch

BATCH = 100_000

_BATCHES = f"batches of {BATCH:,}"
_COUNTS = "SELECT count(*), count(DISTINCT event_id) FROM data"


def load_duckdb(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Load events; a batch's ids are deleted and its rows inserted, in one transaction."""
    import orjson
    import pandas as pd

    connection = duckdb.connect(job.warehouse.removeprefix("duckdb:///"))
    with stopwatch.running():
        known: dict[str, str] = {}
        for events in pages(job, BATCH, orjson.loads):
            frame = _flat(events)
            connection.register("frame", frame)
            connection.execute("BEGIN")
            _evolve_duckdb(connection, known, frame)
            connection.execute(
                "DELETE FROM data WHERE event_id IN (SELECT event_id FROM frame);"
                "INSERT INTO data BY NAME SELECT * FROM frame"
            )
            connection.execute("COMMIT")
            connection.unregister("frame")
        connection.execute("CHECKPOINT")
    rows, event_ids = connection.sql(_COUNTS).fetchall()[0]
    connection.close()
    how = f"pandas {pd.__version__}: orjson, json_normalize, DELETE and INSERT; {_BATCHES}"
    return Outcome(job.events, how, rows, event_ids)


def load_postgres(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Load events; a batch is copied to a temporary table and inserted or updated from there."""
    import orjson
    import pandas as pd

    with psycopg.connect(job.warehouse) as connection:
        with stopwatch.running():
            known: dict[str, str] = {}
            for events in pages(job, BATCH, orjson.loads):
                _upsert_postgres(connection, known, _flat(events))
        found = connection.execute(_COUNTS).fetchone()
    rows, event_ids = found or (0, 0)
    how = f"pandas {pd.__version__}: orjson, json_normalize, COPY, ON CONFLICT; {_BATCHES}"
    return Outcome(job.events, how, rows, event_ids)


def _flat(events: list[Event]) -> Any:  # noqa: ANN401  pandas is not there without the extra
    """Return one row an event_id; arrays and columns of mixed types become text."""
    import pandas as pd

    frame = pd.json_normalize(events, sep="__").drop_duplicates("event_id", keep="last")
    frame.columns = [name.lower().replace("-", "_") for name in frame.columns]
    for name in frame.select_dtypes("object").columns:
        if pd.api.types.infer_dtype(frame[name], skipna=True) not in ("boolean", "string"):
            frame[name] = frame[name].map(_text, na_action="ignore")
    return frame


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _types(frame: Any) -> dict[str, str]:  # noqa: ANN401  likewise
    import pandas as pd

    kinds = pd.api.types
    return {
        name: "DOUBLE PRECISION"
        if kinds.is_numeric_dtype(frame[name]) and not kinds.is_bool_dtype(frame[name])
        else "BOOLEAN"
        if kinds.infer_dtype(frame[name], skipna=True) == "boolean"
        else "TEXT"
        for name in frame.columns
    }


def _evolve_duckdb(
    connection: duckdb.DuckDBPyConnection,
    known: dict[str, str],
    frame: Any,  # noqa: ANN401  likewise
) -> None:
    types = _types(frame)
    if not known:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
        connection.execute(f"CREATE TABLE data ({columns})")
    else:
        for name in types.keys() - known.keys():
            connection.execute(f'ALTER TABLE data ADD COLUMN "{name}" {types[name]}')
    known |= types


def _upsert_postgres(
    connection: psycopg.Connection[Any],
    known: dict[str, str],
    frame: Any,  # noqa: ANN401  likewise
) -> None:
    types = _types(frame)
    if not known:
        connection.execute("CREATE TABLE data (event_id TEXT PRIMARY KEY)")
        known["event_id"] = "TEXT"
    for name in types.keys() - known.keys():
        connection.execute(
            sql.SQL("ALTER TABLE data ADD COLUMN {} {}").format(
                sql.Identifier(name), sql.SQL(types[name])
            )
        )
        known[name] = types[name]
    names = [sql.Identifier(name) for name in types]
    columns = sql.SQL(", ").join(names)
    connection.execute("CREATE TEMPORARY TABLE batch (LIKE data) ON COMMIT DROP")
    text = io.StringIO()
    frame.to_csv(text, index=False, header=False)
    with (
        connection.cursor() as cursor,
        cursor.copy(sql.SQL("COPY batch ({}) FROM STDIN (FORMAT csv)").format(columns)) as copy,
    ):
        copy.write(text.getvalue())
    updates = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in names)
    connection.execute(
        sql.SQL(
            "INSERT INTO data ({0}) SELECT {0} FROM batch ON CONFLICT (event_id) DO UPDATE SET {1}"
        ).format(columns, updates)
    )
    connection.commit()
