"""Seconds from the acknowledgement of a single event to its row, through Dagster's sensor."""

import random
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.errors import BenchmarkError
from benchmarks.installation import Installation
from benchmarks.processes import COMMAND, LOCAL, PROJECT, Process, is_ok, request, running
from benchmarks.report import Row, below, heading, number, percentile
from benchmarks.sizes import Sizes
from customerio_pipeline.cli.processes import free_port
from customerio_pipeline.errors import WarehouseError
from customerio_pipeline.settings import Settings
from customerio_pipeline.simulator.events import SimulatedEvent, generate
from customerio_pipeline.warehouse import open_warehouse

_SEED = 3
_SHORTEST_PAUSE_SECONDS = 1.0
_POLL_SECONDS = 0.2
_GOAL_SECONDS = 15
_OK = 200
# Without an event for so long a drain run ends; the sensor then has to start another one.
_IDLE_SECONDS: float = Settings.model_fields["load_idle_seconds"].default


def measure(folder: Path, sizes: Sizes) -> Iterator[Row]:
    """Yield the rows about freshness."""
    chance = random.Random(_SEED)  # noqa: S311  moments, not secrets
    took = []
    pauses = []
    with _everything(folder) as (installation, process, port):
        events = generate(_SEED, duplicates=0, malformed=0, now=time.time)
        follower = _Follower(installation, process, port)
        # Creates the table, and shows that everything runs.
        follower.follow(next(events))
        for _ in range(sizes.single_events):
            pauses.append(chance.uniform(_SHORTEST_PAUSE_SECONDS, sizes.longest_pause))
            time.sleep(pauses[-1])
            took.append(follower.follow(next(events)))
    yield heading(
        f"Freshness: {sizes.single_events} single events, each {_SHORTEST_PAUSE_SECONDS:g} to"
        f" {sizes.longest_pause:g} s after the row of the last one, with `up` running"
    )
    p95 = percentile(took, 0.95)
    yield Row("seconds from ack to row, p50", number(statistics.median(took)))
    yield Row("seconds from ack to row, p95", number(p95), goal=below(_GOAL_SECONDS, p95))
    yield Row("seconds from ack to row, least and greatest", _range(took))
    for name, is_long in (("up to", False), ("above", True)):
        part = [
            seconds
            for seconds, pause in zip(took, pauses, strict=True)
            if (pause > _IDLE_SECONDS) is is_long
        ]
        if part:
            yield Row(
                f"seconds from ack to row, p50 of the {len(part)} after a pause {name}"
                f" {_IDLE_SECONDS:g} s",
                number(statistics.median(part)),
            )


class _Follower:
    def __init__(self, installation: Installation, process: Process, port: int) -> None:
        # Held by a load: not to be waited for, the next poll comes soon.
        update = {"warehouse_wait_seconds": 0.0}
        self._settings = installation.settings.model_copy(update=update)
        self._installation = installation
        self._process = process
        self._port = port

    def follow(self, event: SimulatedEvent) -> float:
        """Send an event; return the seconds from the answer until a query finds its row."""
        status = request(self._port, "POST", self._installation.path, event.body)
        acked = time.perf_counter()
        if status != _OK:
            raise BenchmarkError(f"The receiver answered {status}.")
        self._process.wait_for(
            lambda: self._has_row(event.event_id), "the event had a row", _POLL_SECONDS
        )
        return time.perf_counter() - acked

    def _has_row(self, event_id: str | None) -> bool:
        table = f"{self._installation.schema}.data"
        query = f"SELECT 1 FROM {table} WHERE event_id = ?"
        try:
            with closing(open_warehouse(self._settings)) as target:
                return bool(target.query(query, [event_id]).rows)
        except WarehouseError:
            # There is no table yet, or a load holds the file.
            return False


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
