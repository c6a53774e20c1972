"""Landing files of an hour that is over, as many sealings leave them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file
from tests.landed_bodies import RECEIVED_NS, SCHEMA

HOUR = datetime(2026, 1, 1, 5, 59, tzinfo=UTC)

# The pattern of docs/landing-format.md, and what it shows: all columns but the folders'.
_ROWS = 'SELECT * FROM read_parquet(?, hive_partitioning = false) ORDER BY writer, "offset"'


def land_hour(
    landing: Path, *files: Sequence[bytes], writer: str = "w0", first: int = 0
) -> list[LandingFile]:
    """Land each of `files` in `HOUR`, offsets following each other from `first`."""
    landed = []
    for bodies in files:
        deliveries = [
            Delivery(
                writer,
                first + at,
                RECEIVED_NS + first + at,
                RECEIVED_NS + first + at,
                "url_1",
                "unchecked",
                (f"type {at}", *(None,) * (len(LANDED_HEADERS) - 1)),
                body,
            )
            for at, body in enumerate(bodies)
        ]
        last = first + len(bodies) - 1
        file = LandingFile.sealed_at(HOUR, schema=SCHEMA, writer=writer, first=first, last=last)
        write_landing_file(landing, file, [deliveries])
        landed.append(file)
        first = last + 1
    return landed


def rows_outside(landing: Path) -> list[tuple[object, ...]]:
    """Return every row that a reader of the documented pattern sees."""
    with duckdb.connect() as connection:
        pattern = f"{landing}/integration=*/date=*/hour=*/*.parquet"
        return connection.execute(_ROWS, [pattern]).fetchall()


def names(landing: Path) -> list[str]:
    """Return the names of all that is below the landing folder, but the folders of the path."""
    return sorted(
        path.name
        for path in landing.rglob("*")
        if not path.name.startswith(("integration=", "date=", "hour="))
    )
