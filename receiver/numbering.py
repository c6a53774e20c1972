"""Offsets and sequence numbers: the names under which deliveries are kept (design C1)."""

import secrets
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from customerio_pipeline.landing.delivery import Delivery

Batch = Mapping[str, list[Delivery]]
"""Deliveries that were made durable together, by schema, each in the order of its offsets."""

_WRITER_ID_BYTES = 5


class Receipt(msgspec.Struct, frozen=True):
    """An accepted request that has no number yet."""

    schema: str
    """Schema of the integration whose URL was called."""

    url_id: str
    received_ns: int
    """Wall clock at receipt, ns since the epoch."""

    signature: str
    headers: tuple[str | None, ...]
    """Values of `LANDED_HEADERS`."""

    body: bytes


class Stream(NamedTuple):
    """The numbering domain of one spool and one integration."""

    writer: str
    next_offset: int


class Numbering(msgspec.Struct, frozen=True, array_like=True):
    """Where the numbers of a spool stand. Never changed: each step makes a new one.

    So a batch that could not be stored leaves no trace: its numbers go to the next batch.
    """

    streams: dict[str, Stream] = {}
    """By schema."""

    sequence: int = 0
    """The last ``_sdc_sequence`` given, in all streams."""

    def number(self, receipts: Iterable[Receipt]) -> tuple[dict[str, list[Delivery]], "Numbering"]:
        """Give each receipt its offset and sequence; return the batch and where it leads."""
        batch: dict[str, list[Delivery]] = {}
        writers = {schema: stream.writer for schema, stream in self.streams.items()}
        offsets = {schema: stream.next_offset for schema, stream in self.streams.items()}
        sequence = self.sequence
        for receipt in receipts:
            schema = receipt.schema
            if schema not in writers:
                writers[schema] = secrets.token_hex(_WRITER_ID_BYTES)
                offsets[schema] = 0
            # Rises even where the clock stands still or goes back.
            sequence = max(sequence + 1, receipt.received_ns)
            batch.setdefault(schema, []).append(
                Delivery(
                    writers[schema],
                    offsets[schema],
                    sequence,
                    receipt.received_ns,
                    receipt.url_id,
                    receipt.signature,
                    receipt.headers,
                    receipt.body,
                )
            )
            offsets[schema] += 1
        streams = {schema: Stream(writers[schema], offsets[schema]) for schema in writers}
        return batch, Numbering(streams, sequence)

    def after(self, batch: Batch) -> "Numbering":
        """Return where a stored `batch` leads."""
        streams = dict(self.streams)
        sequence = self.sequence
        for schema, deliveries in batch.items():
            last = deliveries[-1]
            streams[schema] = Stream(last.writer, last.offset + 1)
            sequence = max(sequence, last.sequence)
        return Numbering(streams, sequence)
