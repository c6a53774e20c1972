"""Erasing a person: from the tables, then from the landing files they are made of.

What is to be erased is written down first (`customerio_pipeline.landing.erasures`): from then on no
load brings it. So a kill at any point leaves something that the same command, or the hourly job,
finishes.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.compaction import alone, beside_of, discard
from customerio_pipeline.landing.erased_rows import erase_rows
from customerio_pipeline.landing.erasures import (
    CarriedOut,
    Erasure,
    Erasures,
    Hashed,
    Returned,
    hashed,
)
from customerio_pipeline.landing.expiry import finish
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.joining import tables_of
from customerio_pipeline.landing.listing import LandingListing, files_in
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.rewriting import remove_halves, rewrite_file
from customerio_pipeline.loading.erased import Erased, Masked, Rest, rest_of
from customerio_pipeline.loading.masking import NO_MASKING, Masking
from customerio_pipeline.loading.persons import plain_email
from customerio_pipeline.loading.target import Removal, Target
from customerio_pipeline.verifying.erased_tables import look

# The kernel's times of files are that coarse, and more.
_SLACK_NS = 1_000_000_000

LANDING = "landing"


class PlaceCount(NamedTuple):
    """How much there is of a person in one place."""

    place: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Erasing:
    """What came of an erasure."""

    schema: str
    erasure: str
    """Name of the file in ``_erasures`` that keeps it so."""

    events: int
    """Erased from landing: events in the deliveries there."""

    places: Sequence[PlaceCount]
    problems: Sequence[str]
    """Why something is left."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left."""
        return not self.problems and not any(place.after for place in self.places)


@dataclass(slots=True)
class _Landed:
    """What landing holds of what was erased."""

    files: list[LandingFile] = field(default_factory=list)
    deliveries: int = 0
    events: int = 0
    event_ids: set[str] = field(default_factory=set)
    whole: dict[str, OffsetSet] = field(default_factory=dict)
    """Offsets of deliveries that hold nothing else."""

    problems: list[str] = field(default_factory=list)


def erase(  # noqa: PLR0913  what is to be erased, and where
    target: Target,
    landing: Path,
    schema: str,
    customer_ids: Sequence[str],
    emails: Sequence[str],
    *,
    masking: Masking = NO_MASKING,
) -> Erasing:
    """Erase whatever names one of these customer ids or e-mail addresses, up to now.

    `masking` are the rules on fields: the tables may have hashes in the place of the values.

    Raises:
        LandingError: somebody else changes the landing files, or one cannot be written.
        WarehouseError: the warehouse cannot be read or written; a repeat goes on.
    """
    erasures = Erasures(landing, schema)
    erasures.read()
    salt = erasures.salt()
    sought = Erasure(
        erased_at_ns=time.time_ns(),
        salt=salt,
        customer_ids=tuple(hashed(salt, Hashed.CUSTOMER_ID, each) for each in customer_ids),
        emails=tuple(hashed(salt, Hashed.EMAIL, plain_email(each)) for each in emails),
        event_ids=(),
    )
    with _in_peace(target, landing, schema) as folder:
        # Twice through landing: other versions of the events may not name the person.
        masked = None
        if masking is not NO_MASKING:
            masked = Masked(
                frozenset(map(masking.hashed, customer_ids)),
                frozenset(map(masking.hashed, {*emails, *map(plain_email, emails)})),
            )
        person = Erased([sought], masked)
        event_ids = _look_through(landing, _hours(folder), person).event_ids
        event_ids |= look(target, schema, person, event_ids).event_ids
        digests = sorted(hashed(salt, Hashed.EVENT_ID, each) for each in event_ids)
        name = erasures.write(msgspec.structs.replace(sought, event_ids=tuple(digests)))
        erased = Erased(erasures.read(), masked)
        return _carry_out(target, landing, schema, erasures, erased, name)


def finish_erasures(target: Target, landing: Path, schema: str) -> str | None:
    """Carry out what is left of erasures: some may have been killed, or something came again.

    Looks through folders that changed since the last time, or all when there is a new erasure.
    Returns what was done, for a person; None if nothing was erased ever.

    Raises:
        LandingError: something is left.
        WarehouseError: the warehouse cannot be read or written.
    """
    erasures = Erasures(landing, schema)
    erased = Erased(erasures.read())
    for error in erasures.damaged.values():
        raise error
    if not erased:
        return None
    now_ns = time.time_ns()
    notes = erasures.returned()
    done = erasures.carried_out()
    folder = landing / f"integration={schema}"
    if set(erasures.names) <= set(done.erasures):
        changed = [hour for hour in _hours(folder) if hour.stat().st_ctime_ns >= done.until_ns]
        found = _look_through(landing, changed, erased)
        if not found.files and not found.problems:
            erasures.note(CarriedOut(erasures=erasures.names, until_ns=now_ns - _SLACK_NS))
            _forget(notes)
            return f"{schema}: nothing came back of what was erased"
    with _in_peace(target, landing, schema):
        report = _carry_out(target, landing, schema, erasures, erased, erasures.names[-1])
    if not report.is_complete:
        raise LandingError(
            " ".join(report.problems) or f"Something is left of what was erased from {schema}."
        )
    _forget(notes)
    return f"{schema}: {report.events:,} events erased from landing"


def erase_returned(landing: Path, schema: str) -> str | None:
    """Take out of landing what loads met of what was erased, from the files that hold it only.

    No load has put it into a table. Returns what was done, for a person; None if nothing was met.

    Raises:
        LandingError: something is left, and stays noted.
    """
    erasures = Erasures(landing, schema)
    notes = erasures.returned()
    if not notes:
        return None
    erased = Erased(erasures.read())
    places: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
    for note in notes:
        for writer, offsets in note.offsets.items():
            for offset in offsets:
                places[writer].add(offset, offset)
    found = _Landed()
    with alone(landing, schema):
        for file in LandingListing(landing, schema).files():
            if len(places[file.writer].within(file.first, file.last)):
                _look_into(landing, file, erased, found)
        for file in found.files:
            try:
                rewrite_file(landing, file, lambda table: _without(table, erased))
            except OSError as error:
                raise LandingError(_not_rewritten(file, error)) from None
    _forget(notes)
    return f"{schema}: {found.events:,} events erased from landing that came back"


def _forget(notes: Iterable[Returned]) -> None:
    for note in notes:
        note.path.unlink(missing_ok=True)


def _not_rewritten(file: LandingFile, error: OSError) -> str:
    return f"{file.relative_path} cannot be written anew: {error}."


def _carry_out(  # noqa: PLR0913, PLR0917  what is to be erased, and where
    target: Target, landing: Path, schema: str, erasures: Erasures, erased: Erased, name: str
) -> Erasing:
    """Remove everything that is covered: from the tables first, as landing tells what it was."""
    began_ns = time.time_ns()
    folder = landing / f"integration={schema}"
    _clear(landing, schema, folder)
    landed = _look_through(landing, _hours(folder), erased)
    with target.exclusive(schema):
        before = look(target, schema, erased, landed.event_ids)
        state = target.state(schema)
        if state.table_columns:
            held = {
                writer: offsets.common(landed.whole.get(writer, OffsetSet()))
                for writer, offsets in state.held.items()
            }
            target.remove(
                schema,
                Removal(sorted(before.event_ids), before.rejected, held, datetime.now(UTC)),
            )
        tables_after = look(target, schema, erased, landed.event_ids)
    problems = list(landed.problems)
    for file in landed.files:
        try:
            rewrite_file(landing, file, lambda table: _without(table, erased))
        except LandingError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(_not_rewritten(file, error))
    after = _look_through(landing, _hours(folder), erased)
    report = Erasing(
        schema,
        name,
        landed.events,
        [
            PlaceCount(LANDING, landed.deliveries, after.deliveries),
            *(
                PlaceCount(place, count, tables_after.counts.get(place, 0))
                for place, count in before.counts.items()
            ),
        ],
        problems,
    )
    if report.is_complete:
        erasures.note(CarriedOut(erasures=erasures.names, until_ns=began_ns - _SLACK_NS))
    return report


@contextmanager
def _in_peace(target: Target, landing: Path, schema: str) -> Iterator[Path]:
    """Keep out rebuilds, which fill tables beside, and whoever else takes landing files away."""
    with target.exclusive(f"{schema} (rebuild)"), alone(landing, schema) as folder:
        yield folder


def _clear(landing: Path, schema: str, folder: Path) -> None:
    """Remove what killed processes left: copies of deliveries that no listing shows."""
    if not folder.is_dir():
        return
    finish(landing, schema, folder)
    for hour in _hours(folder):
        discard(beside_of(hour), hour)
        remove_halves(landing, schema, hour)


def _hours(folder: Path) -> list[Path]:
    return sorted(folder.glob("date=*/hour=*"))


def _look_through(landing: Path, hours: Sequence[Path], erased: Erased) -> _Landed:
    """Read the files of some hours, superseded ones too, for what was erased."""
    found = _Landed()
    for hour in hours:
        for file in files_in(hour):
            try:
                _look_into(landing, file, erased, found)
            except LandingError as error:
                found.problems.append(str(error))
    return found


def _look_into(landing: Path, file: LandingFile, erased: Erased, found: _Landed) -> None:
    is_first = True
    for table in tables_of(landing, [file]):
        rests = _rests(table, erased)
        if rests and is_first:
            found.files.append(file)
            is_first = False
        offset = table["offset"][0].as_py()
        for row, rest in rests.items():
            found.deliveries += 1
            found.events += rest.events
            found.event_ids |= rest.event_ids
            if rest.body is None:
                whole = found.whole.setdefault(file.writer, OffsetSet())
                whole.add(offset + row, offset + row)


def _rests(table: pa.Table, erased: Erased) -> Mapping[int, Rest]:
    rests = {
        row: rest_of(body, encoding, received_us, erased)
        for row, (body, encoding, received_us) in enumerate(
            zip(
                table["body"].to_pylist(),
                table["content_encoding"].to_pylist(),
                table["received_at"].cast(pa.int64()).to_pylist(),
                strict=True,
            )
        )
    }
    return {row: rest for row, rest in rests.items() if rest is not None}


def _without(table: pa.Table, erased: Erased) -> pa.Table:
    rests = _rests(table, erased)
    return erase_rows(table, {row: rest.body for row, rest in rests.items()}) if rests else table
