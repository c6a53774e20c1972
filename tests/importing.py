"""An installation into which files are imported."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from customerio_pipeline.landing.listing import LandingListing
from tests.installation import Installation
from tests.landed_bodies import SCHEMA


class Importing(Installation):
    """An installation into which files are imported."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        super().__init__(installation.warehouse, installation.registry)
        self.folder = folder

    def write(self, content: bytes, name: str = "events.jsonl") -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_bytes(content)
        return str(path)

    def imported(self, *arguments: str) -> list[dict[str, Any]]:
        """Import files and return what the command says of each."""
        result = self.run("import", SCHEMA, *arguments, "--json")
        assert result.exit_code == 0, result.output
        files: list[dict[str, Any]] = json.loads(result.output)["files"]
        return files

    def landed(self) -> list[dict[str, Any]]:
        """Return all rows of the landing files, in the order of writer and offset."""
        folder = self.warehouse.landing
        files = LandingListing(folder, SCHEMA).files()
        rows = [
            row for file in files for row in pq.ParquetFile(file.path(folder)).read().to_pylist()
        ]
        return sorted(rows, key=lambda row: (row["writer"], row["offset"]))

    def rows(self) -> dict[object, dict[str, object]]:
        """Return the rows of `data` by event_id, but for what depends on the load or the writer."""
        result = self.warehouse.target.query(f"SELECT * FROM {SCHEMA}.data")  # noqa: S608  a test's constant
        left_out = {"_sdc_batched_at", "_sdc_writer", "_sdc_offset", "_sdc_key"}
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        return {
            row["event_id"]: {name: value for name, value in row.items() if name not in left_out}
            for row in rows
        }

    def values(self) -> dict[object, dict[str, object]]:
        """Return these rows without nulls."""
        return {
            event_id: {name: value for name, value in row.items() if value is not None}
            for event_id, row in self.rows().items()
        }
