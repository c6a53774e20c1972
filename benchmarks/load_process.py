"""A fresh process that loads, measures itself and prints what it found as JSON.

``drain`` loads all that is landed. ``warm`` lands and loads a few deliveries again and again with
one loader, as a drain run does. Where from and where to is in the settings.
"""

import argparse
import json
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.landed_events import Chunk, write_chunk
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.settings import load_settings
from customerio_pipeline.warehouse import open_warehouse

_COUNTS = ("deliveries", "events", "inserted", "updated", "duplicates", "rejected")
_WARM_UPS = 2
_WRITER = "cccccccccc"


def main() -> None:
    """Load and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("schema")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("drain")
    warm = commands.add_parser("warm")
    warm.add_argument("--number", type=int, required=True, help="of the first event to simulate")
    warm.add_argument("--loads", type=int, required=True)
    warm.add_argument("--sizes", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    with _loader(arguments.schema) as loader:
        if arguments.command == "drain":
            found = _drain(loader)
        else:
            found = _warm(loader, arguments.number, arguments.loads, arguments.sizes)
    print(json.dumps(found | {"peak_bytes": _peak_bytes()}))


@contextmanager
def _loader(schema: str) -> Iterator[Loader]:
    settings = load_settings()
    with (
        closing(open_warehouse(settings)) as target,
        closing(Loader(schema, settings.landing, target)) as loader,
    ):
        yield loader


def _drain(loader: Loader) -> dict[str, object]:
    began = time.perf_counter()
    reports = list(drain(loader))
    seconds = time.perf_counter() - began
    counts = {name: sum(getattr(report, name) for report in reports) for name in _COUNTS}
    rows = reports[-1].row_count if reports else 0
    return {"seconds": seconds, "batches": len(reports), "row_count": rows, **counts}


def _warm(loader: Loader, number: int, loads: int, sizes: list[int]) -> dict[str, object]:
    """Return the median milliseconds of loads of each size."""
    landing = load_settings().landing
    first = 0
    medians = {}
    for size in sizes:
        took = []
        for _ in range(_WARM_UPS + loads):
            write_chunk(Chunk(landing, loader.schema, _WRITER, first, size, number + first))
            first += size
            began = time.perf_counter()
            loader.load_next()
            took.append((time.perf_counter() - began) * 1000)
        medians[str(size)] = statistics.median(took[_WARM_UPS:])
    return {"ms": medians}


def _peak_bytes() -> int:
    """Return the most memory that this process held; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    main()
