"""Counting what was acknowledged, landed, loaded.

acknowledged = landed + in the spool; landed = loaded + held + waiting; events = rows + duplicates
+ rejected.

What was erased is landed and loaded still, as deliveries that hold nothing any more.

Every writer numbers what it acknowledges 0, 1, 2, … without a gap (design C2), a landing file names
its offsets, and a load settles offsets and counts events in the transaction that writes rows. So
whatever is lost anywhere leaves a number that does not add up.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.reverification import row_groups_with
from customerio_pipeline.landing.signatures import ERASED
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.target import Reader, SchemaState
from receiver.spooled import Spooled, read_spooled

# One statement, so that all of it is of one moment while loads go on.
_TOTALS = """
SELECT (SELECT coalesce(sum(next_offset - first_offset), 0) FROM "{schema}"._sdc_watermarks),
 coalesce(sum(deliveries), 0), coalesce(sum(events), 0), coalesce(sum(inserted), 0),
 coalesce(sum(duplicates), 0), coalesce(sum(rejected), 0),
 (SELECT count(*) FROM "{schema}".data), (SELECT count(DISTINCT event_id) FROM "{schema}".data),
 (SELECT count(*) FROM "{schema}"._sdc_rejected){held}
FROM "{schema}"._sdc_loads
"""


# A warehouse of an earlier release has no such table before its next load.
_HELD = ', (SELECT count(*) FROM "{schema}"._sdc_held)'


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that does not add up."""

    what: str
    """A sentence for a person."""

    writer: str | None = None
    first_offset: int | None = None
    last_offset: int | None = None
    hour: str | None = None
    """UTC, of sealing: ``2026-11-26T13``."""

    file: str | None = None
    """Below the landing folder."""


@dataclass(frozen=True, slots=True)
class HourCount:
    """Deliveries of a writer that were landed in an hour, and where they are."""

    hour: str
    writer: str
    files: int
    landed: int
    loaded: int
    held: int
    """Landed, and kept from the tables as no signing key signed them."""

    waiting: int
    """Landed, and still to be loaded."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the warehouse says of itself."""

    settled: int = 0
    """Offsets in ``_sdc_watermarks``."""

    deliveries: int = 0
    """By the loads' own count, as all that follow but the last four."""

    events: int = 0
    inserted: int = 0
    duplicates: int = 0
    rejected: int = 0
    rows: int = 0
    event_ids: int = 0
    """Different ones in ``data``."""

    rejected_rows: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one integration."""

    schema: str
    acknowledged: int
    """Up to the greatest number that is known of each writer."""

    spooled: int
    """Acknowledged, and still to land."""

    spool_note: str | None
    """Why the spool could not be read, or not all of it."""

    landed: int
    loaded: int
    held: int
    waiting: int
    expired: int
    """Those of `landed` whose files were removed, as they were old and loaded."""

    erased: int
    """Those of `landed` of which nothing is left but that they came."""

    totals: Totals
    hours: Sequence[HourCount]
    gaps: Sequence[Gap]

    @property
    def is_complete(self) -> bool:
        """Whether everything adds up."""
        return not self.gaps


def account(reader: Reader, landing: Path, spool: Path, schema: str) -> Account:
    """Count what was acknowledged, landed and loaded; reads footers of files, no bodies.

    Raises:
        WarehouseError: the warehouse cannot be read.
    """
    # In this order: what is settled, or gone from the spool, by then has landed before.
    spooled = read_spooled(spool, schema)
    state = reader.state(schema)
    released = Releases(landing, schema).offsets()
    loaded = state.loaded
    totals = _totals(reader, schema) if loaded else Totals()
    with kept_still(landing, schema):
        files = LandingListing(landing, schema).files()
        damage = list(_gaps_of_files(landing, files))
        erased = sum(_count_erased(landing, file) for file in files)
    erasures = Erasures(landing, schema)
    erasures.read()
    expirations = Expirations(landing, schema)
    expired = expirations.gone(files)
    landed = landed_offsets(files, expired)
    in_spool = {
        writer: offsets.without(landed.get(writer, OffsetSet()))
        for writer, offsets in spooled.offsets.items()
    }
    settled = sum(map(len, loaded.values()))
    gaps = [
        *damage,
        *(Gap(str(error)) for error in expirations.damaged.values()),
        *(Gap(str(error)) for error in erasures.damaged.values()),
        *_gaps_of_offsets(files, landed),
        *_not_loaded(expired, loaded),
        *_not_landed(loaded, landed),
        *_not_kept(spooled, landed, loaded),
        *_gaps_of_totals(totals, settled, reader, schema),
    ]
    hours = _hours(files, state, released)
    return Account(
        schema=schema,
        acknowledged=sum(_acknowledged(spooled, landed, loaded).values()),
        spooled=sum(map(len, in_spool.values())),
        spool_note=spooled.note,
        landed=sum(map(len, landed.values())),
        loaded=settled - sum(map(len, state.held.values())),
        held=sum(hour.held for hour in hours),
        waiting=sum(hour.waiting for hour in hours),
        expired=sum(map(len, expired.values())),
        erased=erased,
        totals=totals,
        hours=hours,
        gaps=gaps,
    )


def _totals(reader: Reader, schema: str) -> Totals:
    holds = reader.query(
        "SELECT 1 FROM information_schema.tables"
        f" WHERE table_schema = '{schema}' AND table_name = '_sdc_held'"
    ).rows
    held = _HELD.format(schema=schema) if holds else ", 0"
    [row] = reader.query(_TOTALS.format(schema=schema, held=held)).rows
    return Totals(*(int(str(value)) for value in row))


def _gaps_of_files(landing: Path, files: Iterable[LandingFile]) -> Iterator[Gap]:
    """Yield what is wrong with single files: unreadable, or not as many rows as its name says."""
    for file in files:
        promised = file.last - file.first + 1
        try:
            rows = pq.read_metadata(file.path(landing)).num_rows
        except (OSError, pa.ArrowException):
            yield _of_file(file, "cannot be read: it is truncated, damaged or no Parquet file")
            continue
        if rows != promised:
            yield _of_file(file, f"has {rows} rows, and its name promises {promised}")


def _count_erased(landing: Path, file: LandingFile) -> int:
    """Count the deliveries of a file that were erased; by its footer, where it has none."""
    try:
        with pq.ParquetFile(file.path(landing)) as parquet:
            groups = row_groups_with(parquet, (ERASED,))
            verdicts = (parquet.read_row_group(at, columns=["signature"]) for at in groups)
            return sum(pc.sum(pc.equal(each["signature"], ERASED)).as_py() for each in verdicts)
    except (OSError, pa.ArrowException):
        return 0  # a gap of its own


def _of_file(file: LandingFile, what: str) -> Gap:
    path = file.relative_path
    return Gap(f"{path} {what}.", file.writer, file.first, file.last, _hour(file), path)


def _gaps_of_offsets(
    files: Sequence[LandingFile], landed: Mapping[str, OffsetSet]
) -> Iterator[Gap]:
    """Yield offsets that are in no file, or in more than one."""
    by_writer: defaultdict[str, list[LandingFile]] = defaultdict(list)
    for file in files:
        by_writer[file.writer].append(file)
    for writer, offsets in landed.items():
        own = sorted(by_writer[writer], key=lambda file: (file.first, file.last))
        for first, last in offsets.gaps():
            after = next((file for file in own if file.first > last), None)
            following = f"{after.relative_path}, which is there" if after else "others that expired"
            yield Gap(
                f"{_name(writer, first, last)} are in no landing file, and came before"
                f" {following}.",
                writer,
                first,
                last,
                _hour(after) if after else None,
            )
        reached = -1
        for file in own:
            if file.first <= reached:
                yield _of_file(file, f"repeats offsets of {writer} that another file has, too")
            reached = max(reached, file.last)


def _not_landed(loaded: Mapping[str, OffsetSet], landed: Mapping[str, OffsetSet]) -> Iterator[Gap]:
    """Yield offsets that were loaded and are in no file any more, beyond the last one there is."""
    for writer, offsets in loaded.items():
        there = landed.get(writer, OffsetSet())
        for first, last in offsets.within(_last(there) + 1, _last(offsets)):
            yield Gap(
                f"{_name(writer, first, last)} were loaded, and no landing file has them any more.",
                writer,
                first,
                last,
            )


def _not_loaded(expired: Mapping[str, OffsetSet], loaded: Mapping[str, OffsetSet]) -> Iterator[Gap]:
    """Yield offsets that were removed from landing and that the warehouse does not have."""
    for writer, offsets in expired.items():
        for first, last in offsets.without(loaded.get(writer, OffsetSet())):
            yield Gap(
                f"{_name(writer, first, last)} were loaded and removed from landing, and the"
                " warehouse has them no more: restore it from a backup.",
                writer,
                first,
                last,
            )


def _not_kept(
    spooled: Spooled, landed: Mapping[str, OffsetSet], loaded: Mapping[str, OffsetSet]
) -> Iterator[Gap]:
    """Yield offsets that the receiver has given, and that nothing has, beyond the last landed."""
    for writer, next_offset in _acknowledged(spooled).items():
        there = landed.get(writer, OffsetSet())
        beyond = OffsetSet([(0, next_offset - 1)] if next_offset else []).within(
            _last(there) + 1, next_offset
        )
        for known in (spooled.offsets, loaded):
            beyond = beyond.without(known.get(writer, OffsetSet()))
        for first, last in beyond:
            yield Gap(
                f"{_name(writer, first, last)} were acknowledged, and are neither in the spool nor"
                " in a landing file.",
                writer,
                first,
                last,
            )


def _acknowledged(spooled: Spooled, *known: Mapping[str, OffsetSet]) -> dict[str, int]:
    """Count what each writer acknowledged: all numbers up to the greatest that is known."""
    count = dict(spooled.next_offsets)
    for each in (spooled.offsets, *known):
        for writer, offsets in each.items():
            count[writer] = max(count.get(writer, 0), _last(offsets) + 1)
    return count


def _last(offsets: OffsetSet) -> int:
    """Return the greatest offset, -1 if there is none."""
    return max((interval.last for interval in offsets), default=-1)


def _gaps_of_totals(totals: Totals, settled: int, reader: Reader, schema: str) -> Iterator[Gap]:
    if not settled:
        return
    for what, one, other in (
        (
            "deliveries: offsets settled, counted by loads + held",
            totals.settled,
            totals.deliveries + totals.held,
        ),
        (
            "events: counted by loads, rows inserted + duplicates + rejected",
            totals.events,
            totals.inserted + totals.duplicates + totals.rejected,
        ),
        ("rows of data: inserted by loads, there now", totals.inserted, totals.rows),
        ("rejected records: counted by loads, there now", totals.rejected, totals.rejected_rows),
    ):
        if one != other:
            yield Gap(f"{schema}: {what}: {one:,} and {other:,} ({other - one:+,}).")
    if totals.rows != totals.event_ids:
        doubled = reader.query(
            f'SELECT event_id, count(*) FROM "{schema}".data'
            " GROUP BY event_id HAVING count(*) > 1 OR event_id IS NULL ORDER BY event_id LIMIT 5"
        ).rows
        names = ", ".join(f"{event_id or 'none'} ({count} rows)" for event_id, count in doubled)
        yield Gap(f"{schema}.data has not one row for each event_id: {names}.")


def _hours(
    files: Iterable[LandingFile], state: SchemaState, released: Mapping[str, OffsetSet]
) -> list[HourCount]:
    none = OffsetSet()
    settled, reopened = state.settled(released), state.reopened(released)
    held = {
        writer: offsets.without(reopened.get(writer, none))
        for writer, offsets in state.held.items()
    }
    counts: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for file in files:
        count = counts[_hour(file), file.writer]
        count[0] += 1
        count[1] += file.last - file.first + 1
        count[2] += len(settled.get(file.writer, none).within(file.first, file.last))
        count[3] += len(held.get(file.writer, none).within(file.first, file.last))
    return [
        HourCount(hour, writer, files, landed, done - parked, parked, landed - done)
        for (hour, writer), (files, landed, done, parked) in sorted(counts.items())
    ]


def _hour(file: LandingFile) -> str:
    return f"{file.day.isoformat()}T{file.hour:02d}"


def _name(writer: str, first: int, last: int) -> str:
    return (
        f"The offsets {first} to {last} of {writer}"
        if first < last
        else (f"The offset {first} of {writer}")
    )
