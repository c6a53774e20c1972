"""Removing old days of landing: only what the warehouse has for good."""

from datetime import datetime
from pathlib import Path

from customerio_pipeline.landing.expiry import Expiry, expire
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.loading.target import Target


def expire_loaded(
    target: Target, landing: Path, schema: str, *, days: int, now: datetime | None = None
) -> Expiry:
    """Remove the days of landing that are older than `days` and loaded; loads wait meanwhile.

    Raises:
        LandingError: a day cannot be removed.
        WarehouseError: the warehouse cannot be read; nothing was removed.
    """
    with target.exclusive(schema):
        # The warehouse itself, never its copy: another one may have taken its place.
        state = target.state(schema)
        settled = state.settled(Releases(landing, schema).offsets())
        return expire(landing, schema, settled, state.held, days=days, now=now)
