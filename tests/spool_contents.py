"""Making spools by hand, and reading what they hold."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from receiver.journal import Journal
from receiver.numbering import Receipt
from receiver.segments import SegmentReader
from receiver.slots import list_segments, slot_folders

SCHEMA = "stitch_customerio"


def receipt(
    body: bytes, schema: str = SCHEMA, received_ns: int = 1_700_000_000_000_000_000
) -> Receipt:
    """Return an accepted request."""
    return Receipt(schema, "url_1", received_ns, "unchecked", (None,) * len(LANDED_HEADERS), body)


def store(journal: Journal, *bodies: bytes, schema: str = SCHEMA) -> None:
    """Store the bodies as one batch."""
    journal.write([receipt(body, schema) for body in bodies])
    journal.sync()


def journal_with(spool: Path, batches: Iterable[Sequence[bytes]] = ()) -> Journal:
    """Open a journal and store batches of bodies."""
    journal = Journal(spool)
    journal.begin_segment()
    for bodies in batches:
        store(journal, *bodies)
    return journal


def newest_segment(spool: Path) -> Path:
    """Return the newest segment of slot 0."""
    return list_segments(spool / "0")[-1].path


def deliveries_of(path: Path, schema: str = SCHEMA) -> list[Delivery]:
    """Return all whole deliveries of a segment."""
    with SegmentReader(path) as reader:
        return [delivery for batch in reader.batches() for delivery in batch.get(schema, ())]


def segment_numbers(spool: Path) -> list[tuple[str, int]]:
    """Return slot and number of each segment."""
    return [
        (folder.name, segment.number)
        for folder in slot_folders(spool)
        for segment in list_segments(folder)
    ]
