"""What the peers are given: landed events, or rows that are flattened already."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

Event = dict[str, Any]

_LONGEST_ID = 1024


class Job(NamedTuple):
    """What one side has to load, and where to."""

    landing: Path
    """Folder of landing files."""

    ready: Path
    """Arrow file of the rows that the events come to (`benchmarks.ready_rows`)."""

    warehouse: str
    """URL of an empty warehouse."""

    events: int
    """How many events, or ready rows, to load."""

    work: Path
    """A folder for whatever the side keeps on disk."""


class Outcome(NamedTuple):
    """What one side did; the time is the stopwatch's."""

    events: int
    configuration: str
    """How it was set up, and how much it loaded at once."""

    rows: int | None = None
    """Rows of its table in the end; None where it has none."""

    event_ids: int | None = None
    """Different event_ids among them."""


def landing_files(landing: Path) -> list[Path]:
    """Return the files in the order of receipt."""
    return sorted(landing.rglob("*.parquet"))


def pages(job: Job, size: int, loads: Callable[[bytes], Any]) -> Iterator[list[Event]]:
    """Yield the job's events in lists of up to `size`, parsed by `loads`.

    No peer rejects a row of its own accord: what is no object with a usable event_id is left out
    here, which costs next to nothing.
    """
    bodies = itertools.islice(_bodies(job.landing), job.events)
    while page := list(itertools.islice(bodies, size)):
        yield [event for body in page if (event := _event(body, loads)) is not None]


def ready_rows(job: Job) -> pa.Table:
    """Return the job's ready rows, mapped into memory."""
    with pa.memory_map(str(job.ready)) as source:
        return pa.ipc.open_file(source).read_all().slice(0, job.events)


def _bodies(landing: Path) -> Iterator[bytes]:
    for file in landing_files(landing):
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(columns=["body"]):
                yield from batch.column(0).to_pylist()


def _event(body: bytes, loads: Callable[[bytes], Any]) -> Event | None:
    try:
        event = loads(body)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    event_id = event.get("event_id")
    return event if isinstance(event_id, str) and 0 < len(event_id) <= _LONGEST_ID else None
