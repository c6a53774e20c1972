"""What one batch of a load did."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What one batch did; ``events == inserted + duplicates + rejected``."""

    schema: str
    load_id: str
    batched_at: datetime
    files: int
    deliveries: int
    events: int
    inserted: int
    duplicates: int
    """Events that added no row because `data` or this batch has their event_id already."""

    updated: int
    """Those of `duplicates` that were later than the row in `data` and replaced it."""

    rejected: int
    held: int
    """Deliveries left out because no signing key signed them."""

    released: int
    """Those of `deliveries` that were held before."""

    row_count: int
    """Rows of `data` now."""

    received_from: datetime | None
    received_to: datetime | None
    new_columns: tuple[str, ...]
    split_columns: tuple[str, ...]
    """Columns that this batch made for values of another type than their key had so far."""

    waiting: int
    """Deliveries that are landed and still to be loaded."""

    seconds: float

    @property
    def lag_seconds(self) -> float:
        """Seconds from the newest receipt to the load."""
        return _seconds(self.received_to, self.batched_at)

    @property
    def lag_max_seconds(self) -> float:
        """Seconds from the oldest receipt to the load."""
        return _seconds(self.received_from, self.batched_at)


def _seconds(start: datetime | None, end: datetime) -> float:
    return (end - start).total_seconds() if start else 0.0
