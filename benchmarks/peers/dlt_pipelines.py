"""dlt, merging on `event_id`: as it comes, tuned for JSON, and given Arrow rows."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.peers.inputs import Event, Job, Outcome, pages, ready_rows
from benchmarks.stopwatch import Stopwatch

_TABLE, _DATASET = "data", "cio"

# Arrays become JSON text, as in our table, rather than a table each with a row an element.
_ARRAYS = (
    "data__recipients",
    "data__headers__list_unsubscribe",
    "data__headers__x_campaign_tag",
    "data__variables__customer__hull_segments",
)
_TUNED = {"DATA_WRITER__BUFFER_MAX_ITEMS": "20000", "DATA_WRITER__DISABLE_COMPRESSION": "true"}
_ARROW_ROWS = 100_000
# Nothing of the caller's is used, and nobody is told of the run.
_PRIVATE = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}


@dataclass(frozen=True, kw_only=True)
class _Setup:
    page: int = 1000
    file_format: str | None = None
    arrays_as_json: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)

    def text(self, job: Job) -> str:
        parts = [
            "merge (delete-insert) on event_id",
            f"file format {self.file_format or 'insert_values (default)'}",
            *(f"{name.lower()}={value}" for name, value in self.variables.items()),
            *(["arrays as json columns"] if self.arrays_as_json else []),
        ]
        return f"{', '.join(parts)}; one run of {job.events:,}"


def load_json_default(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Load events as the first example of dlt's documentation does."""
    return _load_json(job, stopwatch, _Setup())


def load_json_tuned(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Load events with the settings that measured best, in one process."""
    return _load_json(job, stopwatch, _tuned(job))


def load_json_parallel(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Do the same, with files that two processes normalize."""
    per_file = max(1, job.events // 4)
    variables = {**_TUNED, "NORMALIZE__WORKERS": "2", "DATA_WRITER__FILE_MAX_ITEMS": str(per_file)}
    return _load_json(job, stopwatch, _tuned(job, variables))


def load_arrow(job: Job, stopwatch: Stopwatch) -> Outcome:
    """Load rows that we have parsed and flattened, as Arrow tables."""
    setup = _Setup(file_format="parquet", variables=_TUNED)
    tables = ready_rows(job).to_batches(max_chunksize=_ARROW_ROWS)
    return _run(job, stopwatch, setup, tables)


def _tuned(job: Job, variables: Mapping[str, str] = _TUNED) -> _Setup:
    # CSV and Parquet took the same time into PostgreSQL; CSV needs no second driver.
    file_format = "csv" if _is_postgres(job) else "parquet"
    return _Setup(page=5000, file_format=file_format, arrays_as_json=True, variables=variables)


def _load_json(job: Job, stopwatch: Stopwatch, setup: _Setup) -> Outcome:
    import orjson

    def events() -> Iterator[list[Event]]:
        return pages(job, setup.page, orjson.loads)

    return _run(job, stopwatch, setup, events())


def _run(job: Job, stopwatch: Stopwatch, setup: _Setup, items: Iterable[Any]) -> Outcome:
    os.environ |= {**setup.variables, **_PRIVATE, "DLT_DATA_DIR": str(job.work)}
    import dlt

    resource = dlt.resource(
        items,
        name=_TABLE,
        primary_key="event_id",
        write_disposition="merge",
        columns={name: {"data_type": "json"} for name in _ARRAYS if setup.arrays_as_json} or None,
    )
    pipeline = dlt.pipeline(
        "benchmark",
        destination=_destination(job),
        dataset_name=_DATASET,
        pipelines_dir=str(job.work / "pipelines"),
    )
    with stopwatch.running():
        pipeline.run(resource, loader_file_format=setup.file_format)
    with pipeline.sql_client() as client:
        found = client.execute_sql(f"SELECT count(*), count(DISTINCT event_id) FROM {_TABLE}")
    rows, event_ids = found[0]
    return Outcome(job.events, f"dlt {dlt.__version__}: {setup.text(job)}", rows, event_ids)


def _destination(job: Job) -> Any:  # noqa: ANN401  dlt has no types that are there without it
    import dlt

    if _is_postgres(job):
        # It insists on a host and a password; the query names the socket's folder.
        parts = urlsplit(job.warehouse)
        url = f"postgresql://{parts.username}:none@localhost{parts.path}?{parts.query}"
        return dlt.destinations.postgres(url)
    return dlt.destinations.duckdb(job.warehouse.removeprefix("duckdb:///"))


def _is_postgres(job: Job) -> bool:
    return job.warehouse.startswith("postgresql:")
