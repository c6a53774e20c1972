"""How far an integration is: what has landed, what is loaded, what waits."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from customerio_pipeline.errors import WarehouseUnavailableError
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.reading import count_pending, pending_files
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.target import Reader


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one integration."""

    landed: int
    """Deliveries in landing files."""

    waiting: int
    """Deliveries that are landed and not loaded."""

    held: int
    """Deliveries that are kept and not loaded, since no signing key signed them."""

    rows: int
    rejected: int
    last_received_at: datetime | None
    """Receipt of the newest loaded delivery."""

    waiting_seconds: float
    """Age of the oldest landing file that waits."""


def read_progress(reader: Reader, landing: Path, schema: str) -> Progress:
    """Compare landing and warehouse, by names and counts alone.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    with kept_still(landing, schema):
        files = LandingListing(landing, schema).files()
        state = reader.state(schema)
        loaded = state.settled(Releases(landing, schema).offsets())
        waiting = pending_files(files, loaded)
        written = [file.path(landing).stat().st_mtime for file in waiting]
    oldest = min(written, default=None)
    rows, rejected, last = _loads(reader, schema) if loaded else (0, 0, None)
    return Progress(
        landed=sum(len(offsets) for offsets in landed_offsets(files).values()),
        waiting=count_pending(waiting, loaded),
        held=sum(map(len, state.held.values())),
        rows=rows,
        rejected=rejected,
        last_received_at=last,
        waiting_seconds=round(datetime.now(UTC).timestamp() - oldest, 1) if oldest else 0.0,
    )


def _loads(reader: Reader, schema: str) -> tuple[int, int, datetime | None]:
    try:
        result = reader.query(
            "SELECT sum(inserted)::BIGINT, sum(rejected)::BIGINT, max(received_to)"
            f' FROM "{schema}"._sdc_loads'
        )
    except WarehouseUnavailableError:
        return 0, 0, None
    inserted, rejected, last = result.rows[0]
    return inserted or 0, rejected or 0, last  # type: ignore[return-value]  # the query's types
