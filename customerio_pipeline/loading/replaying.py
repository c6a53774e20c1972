"""Loading again what was loaded before, after a rule or the code changed.

The tables are a function of landing, so a repeat changes nothing but what comes out differently
now. What is loaded again was counted already: a replay's row in `_sdc_loads` has only what it adds
and takes, and the account stays exact (`customerio_pipeline.verifying.conservation`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import duckdb

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.reading import check_file, read_deliveries
from customerio_pipeline.loading.columns import OVERFLOW_COLUMN
from customerio_pipeline.loading.decoding import read_events
from customerio_pipeline.loading.engine import Source
from customerio_pipeline.loading.erased import Erased
from customerio_pipeline.loading.load import MAX_BATCH_BYTES, MAX_BATCH_DELIVERIES
from customerio_pipeline.loading.staging import Layout, Staging
from customerio_pipeline.loading.target import DATA, Batch, Replay, SchemaState, Target

_COMPARED = ("event_id", "_sdc_received_at", "_sdc_table_version", OVERFLOW_COLUMN)
"""Of the columns that no key has; the others tell of the load, or are the same anyway."""

_REJECTED = """
SELECT writer, "offset", max(CASE WHEN substr(reason, 1, 8) = 'body is ' THEN 1 ELSE 0 END)
FROM "{schema}"._sdc_rejected GROUP BY writer, "offset"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayReport:
    """What came of one batch."""

    schema: str
    files: int
    deliveries: int
    """Deliveries that were read again."""

    inserted: int
    """Events that have a row now and had none."""

    replaced: int
    """Rows that are another one now."""

    rejected: int
    """Records of `_sdc_rejected` more than before; negative where some became valid."""


class _Chosen(NamedTuple):
    """What is to be read again of a file."""

    file: LandingFile
    offsets: OffsetSet


class Replayer:
    """Loads deliveries of one integration again, a batch in a transaction."""

    def __init__(
        self,
        schema: str,
        landing: Path,
        target: Target,
        layout: Layout,
        progress: Callable[[ReplayReport, int], None] = lambda *_: None,
    ) -> None:
        """Begin with nothing read.

        Args:
            schema: of the integration.
            landing: folder of the landing files.
            target: the warehouse.
            layout: of the tables.
            progress: called with each batch, and how many deliveries are chosen in all.
        """
        self._schema = schema
        self._landing = landing
        self._target = target
        self._layout = layout
        self._progress = progress
        self._staging: Staging | None = None

    def close(self) -> None:
        """Release the engine; the target stays open."""
        if self._staging is not None:
            self._staging.close()

    def replay_rejected(self) -> ReplayReport:
        """Try again what was rejected.

        Raises:
            LandingError: landing lacks a file, or one is damaged; the others were tried.
            WarehouseError: what was committed before stays; a repeat goes on.
        """
        wanted: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
        for writer, offset in self._rejected():
            wanted[writer].add(offset, offset)
        files = LandingListing(self._landing, self._schema).files()
        total, errors = self._replay(
            [
                _Chosen(file, wanted[file.writer].within(file.first, file.last))
                for file in files
                if file.writer in wanted
            ]
        )
        # What expired stays rejected for good.
        landed = landed_offsets(files, Expirations(self._landing, self._schema).offsets())
        for writer, offsets in wanted.items():
            for first, last in offsets.without(landed.get(writer, OffsetSet())):
                errors.append(
                    LandingError(
                        f"The rejected offsets {first} to {last} of {writer} are in no landing file"
                        " any more, and stay rejected; restore the landing folder from a backup."
                    )
                )
        return _result(total, errors)

    def replay_landed(self, since: datetime, until: datetime) -> ReplayReport:
        """Load again what was landed in the hours from `since` to `until`, as far as it was loaded.

        Raises:
            LandingError: a file is damaged; the others were loaded.
            WarehouseError: what was committed before stays; a repeat goes on.
        """
        total, errors = self._replay(
            [
                _Chosen(file, OffsetSet([(file.first, file.last)]))
                for file in LandingListing(self._landing, self._schema).files()
                if file.hour_start < until and file.hour_end > since
            ]
        )
        return _result(total, errors)

    def _rejected(self) -> dict[tuple[str, int], bool]:
        """Return the deliveries with rejected records, and whether the whole body was rejected."""
        if not self._target.state(self._schema).loaded:
            return {}
        rows = self._target.query(_REJECTED.format(schema=self._schema)).rows
        return {
            (str(writer), int(str(offset))): bool(is_whole) for writer, offset, is_whole in rows
        }

    def _replay(self, chosen: Sequence[_Chosen]) -> tuple[ReplayReport, list[LandingError]]:
        total = _nothing(self._schema)
        errors: list[LandingError] = []
        in_all = sum(len(each.offsets) for each in chosen)
        for batch in self._batches(chosen, errors):
            try:
                report = self._load(batch)
            except LandingError as error:
                errors.append(error)
                continue
            total = _sum(total, report)
            self._progress(report, in_all)
        return total, errors

    def _batches(
        self, chosen: Sequence[_Chosen], errors: list[LandingError]
    ) -> Iterator[list[_Chosen]]:
        """Cut the files into batches; damaged ones are left out and named in `errors`."""
        batch: list[_Chosen] = []
        deliveries = size = 0
        for each in chosen:
            if not len(each.offsets):
                continue
            try:
                size += check_file(self._landing, each.file)
            except LandingError as error:
                errors.append(error)
                continue
            batch.append(each)
            deliveries += len(each.offsets)
            if deliveries >= MAX_BATCH_DELIVERIES or size >= MAX_BATCH_BYTES:
                yield batch
                batch, deliveries, size = [], 0, 0
        if batch:
            yield batch

    def _load(self, chosen: Sequence[_Chosen]) -> ReplayReport:
        with self._target.exclusive(self._schema):
            state = self._target.state(self._schema)
            sources = self._sources(chosen, state)
            if not sources:
                return _nothing(self._schema)
            try:
                batch, deliveries = self._stage(sources, state)
                counts = self._target.merge(self._schema, batch)
            except BaseException:
                self.close()  # it has learned columns that the table does not have
                self._staging = None
                raise
        return ReplayReport(
            schema=self._schema,
            files=batch.files,
            deliveries=deliveries,
            inserted=counts.inserted,
            replaced=counts.updated,
            rejected=counts.rejected,
        )

    def _sources(self, chosen: Sequence[_Chosen], state: SchemaState) -> list[Source]:
        """Return what to read: of what was chosen that which is loaded, and not held."""
        nothing = OffsetSet()
        sources = []
        for file, offsets in chosen:
            again = offsets.common(state.loaded.get(file.writer, nothing)).without(
                state.held.get(file.writer, nothing)
            )
            if len(again):
                whole = OffsetSet([(file.first, file.last)])
                sources.append(
                    # Whatever their verdicts are: they were loaded.
                    Source(
                        file.path(self._landing),
                        file.writer,
                        len(whole),
                        whole.without(again),
                        again,
                    )
                )
        return sources

    def _stage(self, sources: Sequence[Source], state: SchemaState) -> tuple[Batch, int]:
        """Return the batch, and the number of deliveries that it reads again."""
        batched_at = datetime.now(UTC)
        erased = Erased(Erasures(self._landing, self._schema).read())
        staging = self._warm_staging(state)
        try:
            staged = staging.stage(sources, batched_at, erased)
            more_events = self._more_events(sources)
        except duckdb.Error:
            for source in sources:
                relative = str(source.path.relative_to(self._landing))
                file = LandingFile.from_path(relative)
                if file is not None:
                    check_file(self._landing, file, whole=True)
            raise
        offsets: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
        for source in sources:
            for first, last in source.released:
                offsets[source.writer].add(first, last)
        mappings = staging.take_new()
        columns = {column.name for column in [*state.columns, *mappings] if column.table == DATA}
        there = state.table_columns.keys() | staged.columns.keys()
        compared = sorted(there & {*columns, *_COMPARED})
        counted = staged._replace(deliveries=0, events=more_events)
        batch = Batch(
            load_id=uuid4().hex,
            batched_at=batched_at,
            run_id=None,
            mappings=mappings,
            loaded={},
            released={},
            files=len(sources),
            # What arrays come to is in other tables, which nobody compares.
            replay=Replay(offsets, None if self._layout.subtables else compared),
            **counted._asdict(),
        )
        return batch, staged.deliveries

    def _more_events(self, sources: Sequence[Source]) -> int:
        """Return how many more events there are than were counted when they were loaded.

        A body that was rejected as a whole counted as one, and may be an array of many now.
        """
        whole: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
        for (writer, offset), is_whole in self._rejected().items():
            if is_whole:
                whole[writer].add(offset, offset)
        more = 0
        for source in sources:
            these = source.released.common(whole.get(source.writer, OffsetSet()))
            if len(these):
                rest = OffsetSet([*source.loaded, *source.released]).without(these)
                found = read_deliveries(source.path, rest, these).deliveries
                more += sum(
                    len(read_events(each.body, each.content_encoding)) - 1 for each in found
                )
        return more

    def _warm_staging(self, state: SchemaState) -> Staging:
        if self._staging is None or not self._staging.continues(state):
            self.close()
            self._staging = Staging(state, self._layout)
        return self._staging


def _nothing(schema: str) -> ReplayReport:
    return ReplayReport(schema=schema, files=0, deliveries=0, inserted=0, replaced=0, rejected=0)


def _sum(one: ReplayReport, other: ReplayReport) -> ReplayReport:
    return ReplayReport(
        schema=one.schema,
        files=one.files + other.files,
        deliveries=one.deliveries + other.deliveries,
        inserted=one.inserted + other.inserted,
        replaced=one.replaced + other.replaced,
        rejected=one.rejected + other.rejected,
    )


def _result(total: ReplayReport, errors: Sequence[LandingError]) -> ReplayReport:
    for error in errors:
        raise error
    return total
