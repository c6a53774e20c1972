"""A fresh process that loads, measures itself and prints what it found as JSON.

``drain`` loads all that is landed. ``warm`` lands and loads a few deliveries again and again with
one loader, as a drain run does. Where from and where to is in the settings.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from benchmarks.errors import BenchmarkError
from benchmarks.landed_events import Chunk, write_chunk
from benchmarks.stopwatch import Stopwatch
from customerio_pipeline.errors import PipelineError
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.loading.target import Target
from customerio_pipeline.settings import load_settings
from customerio_pipeline.warehouse import open_warehouse

_COUNTS = ("deliveries", "events", "inserted", "updated", "duplicates", "rejected")
_WRITER = "cccccccccc"


def main() -> None:
    """Load and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("schema")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("drain")
    warm = commands.add_parser("warm")
    warm.add_argument("--pool", type=Path, required=True, help="file of the bodies")
    warm.add_argument("--number", type=int, required=True, help="of the first event to simulate")
    warm.add_argument("--late", type=int, nargs="*", default=(), help="numbers of repeated events")
    warm.add_argument("--warm-ups", type=int, required=True)
    warm.add_argument("--loads", type=int, required=True)
    warm.add_argument("--sizes", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    # The first array of all imports pandas, which only the peers installed; it takes half a second.
    pa.array([])
    stopwatch = Stopwatch()
    try:
        with _loader(arguments.schema) as (loader, target):
            if arguments.command == "drain":
                found = _drain(loader, stopwatch)
            else:
                found = _warm(loader, target, arguments)
    except PipelineError as error:
        sys.exit(str(error))
    print(json.dumps({**stopwatch.found(), **found}))


class _TimedTarget:
    """A target that knows what its last merge took, commit included."""

    def __init__(self, target: Target) -> None:
        self.merge_seconds = self.merge_cpu_seconds = 0.0
        self._target = target

    def __getattr__(self, name: str) -> object:
        return getattr(self._target, name)

    def merge(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401  handed on as they are
        """Merge, and take the time."""
        began, cpu_before = time.perf_counter(), time.process_time()
        try:
            return self._target.merge(*arguments, **options)
        finally:
            self.merge_seconds = time.perf_counter() - began
            self.merge_cpu_seconds = time.process_time() - cpu_before


@contextmanager
def _loader(schema: str) -> Iterator[tuple[Loader, _TimedTarget]]:
    settings = load_settings()
    with closing(open_warehouse(settings)) as target:
        timed = _TimedTarget(target)
        with closing(Loader(schema, settings.landing, cast("Target", timed))) as loader:
            yield loader, timed


def _drain(loader: Loader, stopwatch: Stopwatch) -> dict[str, object]:
    with stopwatch.running():
        reports = list(drain(loader))
    counts = {name: sum(getattr(report, name) for report in reports) for name in _COUNTS}
    rows = reports[-1].row_count if reports else 0
    return {"batches": len(reports), "row_count": rows, **counts}


def _warm(loader: Loader, target: _TimedTarget, arguments: argparse.Namespace) -> dict[str, object]:
    """Return the milliseconds that loads of each size took, and the merges in them."""
    landing = load_settings().landing
    first = 0
    took: dict[str, list[float]] = {}
    merges: dict[str, list[float]] = {}
    merge_cpu: dict[str, list[float]] = {}
    for size in arguments.sizes:
        loads, merge = took.setdefault(str(size), []), merges.setdefault(str(size), [])
        cpu = merge_cpu.setdefault(str(size), [])
        for at in range(arguments.warm_ups + arguments.loads):
            late = [
                (number + first, size // 100 // len(arguments.late)) for number in arguments.late
            ]
            number = arguments.number + first
            write_chunk(
                Chunk(
                    pool=arguments.pool,
                    landing=landing,
                    schema=loader.schema,
                    writer=_WRITER,
                    first=first,
                    deliveries=size,
                    number=number,
                    late=tuple(late),
                )
            )
            first += size
            began = time.perf_counter()
            report = loader.load_next()
            milliseconds = (time.perf_counter() - began) * 1000
            if report is None or report.deliveries != size:
                raise BenchmarkError(f"{size:,} deliveries were not loaded as one batch.")
            if at >= arguments.warm_ups:
                loads.append(milliseconds)
                merge.append(target.merge_seconds * 1000)
                cpu.append(target.merge_cpu_seconds * 1000)
    return {
        "ms": _medians(took),
        "merge_ms": _medians(merges),
        "merge_cpu_ms": _medians(merge_cpu),
    }


def _medians(took: dict[str, list[float]]) -> dict[str, float]:
    return {size: statistics.median(values) for size, values in took.items()}


if __name__ == "__main__":
    main()
