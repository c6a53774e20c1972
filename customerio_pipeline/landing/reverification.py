"""Looking again at what is held: what the keys of today match is released."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases, release
from customerio_pipeline.landing.signatures import HELD_VERDICTS, verdict
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.registry.records import SignaturePolicy

_HEADERS = [name.replace("-", "_") for name in LANDED_HEADERS]
_COLUMNS = ["offset", "signature", "received_at", *_HEADERS, "body"]
_SECOND_NS = 1_000_000_000


class Reverification(NamedTuple):
    """What came of it."""

    held: int
    """Deliveries that are held still."""

    released: int
    damaged: list[LandingError]
    """Of files that could not be looked into."""


def reverify(
    landing: Path, schema: str, policy: SignaturePolicy, tolerance_seconds: float | None
) -> Reverification:
    """Release the held deliveries that `policy` would not hold; the next load takes them.

    A mode that holds nothing releases everything.

    Raises:
        OSError: nothing was released.
    """
    released: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
    before = Releases(landing, schema).offsets()
    held = 0
    damaged = []
    with kept_still(landing, schema):
        for file in LandingListing(landing, schema).files():
            already = before.get(file.writer, OffsetSet())
            try:
                for offset, found in _verdicts(landing, file, already, policy, tolerance_seconds):
                    if found in HELD_VERDICTS:
                        held += 1
                    else:
                        released[file.writer].add(offset, offset)
            except (OSError, pa.ArrowException) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                damaged.append(
                    LandingError(
                        f"Landing file {file.relative_path} cannot be read ({reason}); restore it"
                        " from a backup."
                    )
                )
    if released:
        release(landing, schema, released)
    return Reverification(held, sum(map(len, released.values())), damaged)


def count_held(landing: Path, schema: str) -> Counter[str]:
    """Return how many deliveries landing holds back now, by the verdict on their signatures.

    Files that cannot be read are left out.
    """
    before = Releases(landing, schema).offsets()
    held: Counter[str] = Counter()
    with kept_still(landing, schema):
        for file in LandingListing(landing, schema).files():
            already = before.get(file.writer, OffsetSet())
            with suppress(OSError, pa.ArrowException):
                held.update(
                    row["signature"]
                    for row in _held(landing, file, ["offset", "signature"])
                    if not already.covers(row["offset"], row["offset"])
                )
    return held


def _verdicts(
    landing: Path,
    file: LandingFile,
    released: OffsetSet,
    policy: SignaturePolicy,
    tolerance_seconds: float | None,
) -> Iterator[tuple[int, str]]:
    """Yield the offset and the verdict of today of each delivery that is held."""
    for row in _held(landing, file, _COLUMNS):
        if not released.covers(row["offset"], row["offset"]):
            headers = [row[name] for name in _HEADERS]
            received_ns = int(row["received_at"].timestamp() * _SECOND_NS)
            yield (
                row["offset"],
                verdict(policy, headers, row["body"], received_ns, tolerance_seconds),
            )


def _held(landing: Path, file: LandingFile, columns: list[str]) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(file.path(landing)) as parquet:
        for number in row_groups_with(parquet, HELD_VERDICTS):
            table = parquet.read_row_group(number, columns=columns)
            table = table.filter(pc.is_in(table["signature"], pa.array(HELD_VERDICTS)))
            yield from table.to_pylist()


def row_groups_with(parquet: pq.ParquetFile, verdicts: Sequence[str]) -> Iterator[int]:
    """Yield the row groups that may have one of these verdicts, by their statistics."""
    metadata = parquet.metadata
    at = parquet.schema_arrow.names.index("signature")
    for number in range(metadata.num_row_groups):
        found = metadata.row_group(number).column(at).statistics
        if (
            found is None
            or not found.has_min_max
            or any(found.min <= verdict <= found.max for verdict in verdicts)
        ):
            yield number
