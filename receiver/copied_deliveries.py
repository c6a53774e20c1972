"""Which deliveries of a copied slot still have to be landed."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from customerio_pipeline.landing.delivery import Delivery
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet


def without_landed(
    streams: Mapping[str, Sequence[Delivery]], landing: Path
) -> Iterator[tuple[str, Sequence[Delivery]]]:
    """Yield the deliveries that never were landed, with their schema, in runs of offsets.

    Lists all landing files of the integrations: minutes for millions of them.
    """
    for schema, deliveries in streams.items():
        first = deliveries[0]
        expired = Expirations(landing, schema).offsets()
        landed = landed_offsets(LandingListing(landing, schema).files(), expired)
        own = OffsetSet([(first.offset, deliveries[-1].offset)])
        for start, end in own.without(landed.get(first.writer, OffsetSet())):
            yield schema, deliveries[start - first.offset : end - first.offset + 1]
