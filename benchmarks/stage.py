"""What a benchmark of loading works with: its folder, its sizes, events, and the loader's runs."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.event_pool import make_pool
from benchmarks.landed_events import SCHEMA
from benchmarks.processes import run
from benchmarks.sizes import Sizes

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """What one benchmark is given."""

    folder: Path
    """Its own, in one that all of a run share."""

    sizes: Sizes
    kinds: tuple[str, ...]
    """Kinds of warehouse to load into."""

    sides: tuple[str, ...]
    """Sides of the comparison to measure; empty for all."""

    def pool(self) -> Path:
        """Return the file of the run's bodies; the first caller makes it."""
        file = self.folder.parent / "pool.msgpack"
        if not file.exists():
            click.echo("  Simulating events …", err=True)
            make_pool(file, self.sizes.pool_events)
        return file

    def load(self, warehouse: str, landing: Path, *command: str) -> Found:
        """Run the loader in a fresh process and return what it found.

        Raises:
            BenchmarkError: it failed.
        """
        environment = {
            **os.environ,
            "CUSTOMERIO_HOME": str(self.folder),
            "CUSTOMERIO_LANDING": str(landing),
            "CUSTOMERIO_WAREHOUSE": warehouse,
        }
        module = ("-m", "benchmarks.load_process", SCHEMA)
        found: Found = json.loads(run([sys.executable, *module, *command], environment))
        return found
