"""Seconds from the acknowledgement of a single event to its row, through Dagster's sensor."""

import random
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.installation import Installation
from benchmarks.processes import COMMAND, LOCAL, PROJECT, Process, is_ok, request, running
from benchmarks.report import Row, below, heading, number, percentile
from benchmarks.sizes import Sizes
from customerio_pipeline.cli.processes import free_port
from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.simulator.events import SimulatedEvent, generate
from customerio_pipeline.warehouse import open_warehouse

_SEED = 3
_POLL_SECONDS = 0.2
_GOAL_SECONDS = 5
_OK = 200


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about freshness."""
    chance = random.Random(_SEED)  # noqa: S311  moments, not secrets
    seconds = sizes.freshness_minutes * 60
    moments = sorted(chance.uniform(0, seconds) for _ in range(sizes.single_events))
    with _everything(folder) as (installation, process, port):
        events = generate(_SEED, duplicates=0, malformed=0, now=time.time)
        follower = _Follower(installation, process, port)
        # Creates the table, and shows that everything runs.
        follower.follow(events, [0.0])
        took = follower.follow(events, moments)
    yield heading(
        f"Freshness: {sizes.single_events} events at random moments of"
        f" {sizes.freshness_minutes:g} minutes, with `up` running"
    )
    p95 = percentile(took, 0.95)
    yield Row("seconds from ack to row, p50", number(statistics.median(took)))
    yield Row("seconds from ack to row, p95", number(p95), goal=below(_GOAL_SECONDS, p95))
    yield Row("seconds from ack to row, least and greatest", _range(took))


class _Follower:
    def __init__(self, installation: Installation, process: Process, port: int) -> None:
        # Held by a load: not to be waited for, the next poll comes soon.
        update = {"warehouse_wait_seconds": 0.0}
        self._settings = installation.settings.model_copy(update=update)
        self._installation = installation
        self._process = process
        self._port = port
        self._waiting: dict[str, float] = {}
        self._took: list[float] = []

    def follow(self, events: Iterator[SimulatedEvent], moments: Sequence[float]) -> list[float]:
        """Send events at `moments`, seconds from now, rising.

        Returns the seconds from each answer until a query finds the row.
        """
        self._took = []
        began = time.perf_counter()
        for moment in moments:
            while (rest := began + moment - time.perf_counter()) > 0:
                time.sleep(min(rest, _POLL_SECONDS))
                self._look()
            self._send(next(events))
        self._process.wait_for(self._look, "every event had a row", _POLL_SECONDS)
        return self._took

    def _send(self, event: SimulatedEvent) -> None:
        status = request(self._port, "POST", self._installation.path, event.body)
        if status != _OK:
            raise BenchmarkError(f"The receiver answered {status}.")
        self._waiting[str(event.event_id)] = time.perf_counter()

    def _look(self) -> bool:
        """Note the rows that are there; tell whether none is missing any more."""
        if self._waiting:
            found = self._rows()
            now = time.perf_counter()
            self._took += [now - self._waiting.pop(event_id) for event_id in found]
        return not self._waiting

    def _rows(self) -> list[str]:
        marks = ", ".join("?" * len(self._waiting))
        query = f"SELECT event_id FROM {self._installation.schema}.data WHERE event_id IN ({marks})"
        try:
            with closing(open_warehouse(self._settings)) as target:
                return [str(row[0]) for row in target.query(query, list(self._waiting)).rows]
        except WarehouseError:
            # There is no table yet, or a load holds the file.
            return []


@contextmanager
def _everything(folder: Path) -> Iterator[tuple[Installation, Process, int]]:
    """Run all that a user has running; yield the receiver's port too."""
    installation = Installation.create(folder / "up")
    dagster_home = folder / "dagster_home"
    dagster_home.mkdir()
    shutil.copy(PROJECT / "dagster_home" / "dagster.yaml", dagster_home)
    port, dagster_port = free_port(), free_port()
    command = [COMMAND, "up", f"--host={LOCAL}", f"--port={port}"]
    with running(
        [*command, f"--dagster-port={dagster_port}"],
        environment=installation.environment | {"DAGSTER_HOME": str(dagster_home)},
        log=folder / "up.log",
    ) as process:
        process.wait_for(lambda: is_ok(port, "/health/ready"), "the receiver was ready")
        process.wait_for(lambda: is_ok(dagster_port, "/server_info"), "Dagster was ready")
        yield installation, process, port


def _range(values: list[float]) -> str:
    return f"{number(min(values))} to {number(max(values))}"
