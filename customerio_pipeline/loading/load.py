"""Loading an integration: one micro-batch after another, each in one transaction (design C4)."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import duckdb

from customerio_pipeline.errors import LandingError, WarehouseReplacedError
from customerio_pipeline.landing.erasures import Erasure, Erasures
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing, is_superseded
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.reading import check_file, count_pending, pending_files
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.loading.columns import log_names
from customerio_pipeline.loading.engine import Source
from customerio_pipeline.loading.erased import Erased
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.loading.staging import DEFAULT_LAYOUT, Layout, Staging
from customerio_pipeline.loading.target import Batch, SchemaState, Target

MAX_BATCH_DELIVERIES = 250_000
MAX_BATCH_BYTES = 160 * 1024 * 1024
"""Size of a batch's columns before compression, most of which is JSON. Memory holds a batch about
four times over, and the next one is staged while one is merged."""

POLL_SECONDS = 0.2

_log = logging.getLogger(__name__)


class _Landed(NamedTuple):
    """What landing holds, as of one moment."""

    files: list[LandingFile]
    released: Mapping[str, OffsetSet]
    """Offsets of deliveries that may be held no more, by writer."""

    erasures: Sequence[Erasure]


class _Ahead(NamedTuple):
    """A batch that is being staged while the one before it is merged."""

    expected: SchemaState
    """What the schema must hold for the batch to be the next one."""

    erasures: Sequence[Erasure]
    """Of which there must be no other ones."""

    batch: "Future[Batch | None]"


class Loader:
    """Loads one integration's landing files into a warehouse.

    A damaged file is left out, remembered in `damaged` and does not keep the others back.
    """

    def __init__(  # noqa: PLR0913  what it works on
        self,
        schema: str,
        landing: Path,
        target: Target,
        *,
        layout: Layout | Callable[[], Layout] = DEFAULT_LAYOUT,
        run_id: str | None = None,
        into: str | None = None,
    ) -> None:
        """Begin with nothing loaded in this process.

        Args:
            schema: of the integration.
            landing: folder of the landing files.
            target: the warehouse.
            layout: of the tables; or what tells it as it is now, and is asked once for each batch.
            run_id: of the Dagster run that loads.
            into: schema of the tables; that of the integration when None.
        """
        self.schema = into or schema
        self.damaged: dict[LandingFile, LandingError] = {}
        self._landing = landing
        self._listing = LandingListing(landing, schema)
        self._releases = Releases(landing, schema)
        self._expirations: Expirations | None = Expirations(landing, schema)
        self._target = target
        self._run_id = run_id
        self._layout_now = layout if callable(layout) else lambda: layout
        self._layout = DEFAULT_LAYOUT  # as of the last batch
        self._erasures = Erasures(landing, schema)
        self._erased = Erased()
        self._settled = _Landed([], {}, ())
        self._staging: Staging | None = None
        self._ahead: _Ahead | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="staging")

    def load_next(self) -> LoadReport | None:
        """Load the next batch in one transaction; None when nothing is pending.

        Raises:
            WarehouseError: nothing was changed; a later call repeats the batch.
            RegistryError: the layout cannot be told; likewise.
        """
        started = time.monotonic()
        # Again when files that were to be loaded were compacted meanwhile.
        while (landed := self._landed()) != self._settled:
            report = self._load(landed, started)
            if report is not None:
                return report
        return None  # an idle drain leaves the lock and the warehouse to others

    def _load(self, landed: _Landed, started: float) -> LoadReport | None:
        with self._target.exclusive(self.schema):
            self._follow(self._layout_now())
            # Whoever erases removes rows under this lock, and those of earlier batches only.
            landed = landed._replace(erasures=self._erasures.read())
            state = self._target.state(self.schema)
            self._warn_of_lost(landed, state)
            batch = self._staged_ahead(landed, state) or self._next_batch(landed, state)
            if batch is None:
                self._settled = landed
                return None
            expected = state.after(batch)
            self._stage_ahead(landed, expected)
            try:
                counts = self._target.merge(self.schema, batch)
            except BaseException:
                self._forget()  # it has learned columns that the table does not have
                raise
        self._erasures.note_returned(batch.returned)
        log_names(self.schema, batch.mappings)
        return LoadReport(
            schema=self.schema,
            load_id=batch.load_id,
            batched_at=batch.batched_at,
            files=batch.files,
            deliveries=batch.deliveries,
            events=batch.events,
            inserted=counts.inserted,
            duplicates=batch.absorbed + counts.updated + counts.stale,
            updated=counts.updated,
            rejected=batch.rejected.num_rows,
            held=batch.held.num_rows,
            released=sum(map(len, batch.released.values())),
            row_count=counts.row_count,
            received_from=batch.received_from,
            received_to=batch.received_to,
            new_columns=tuple(sorted(batch.columns.keys() - state.table_columns.keys())),
            split_columns=tuple(column.name for column in batch.mappings if column.is_split),
            waiting=count_pending(
                self._pending(landed, expected), expected.settled(landed.released)
            ),
            seconds=time.monotonic() - started,
        )

    def damage(self) -> list[LandingError]:
        """Return what was left out because it is damaged."""
        return [
            *self.damaged.values(),
            *self._releases.damaged.values(),
            *self._erasures.damaged.values(),
        ]

    def publish(self, *, force: bool = False) -> None:
        """Let readers of a copy see what was loaded (`Target.publish`)."""
        self._target.publish(force=force)

    def close(self) -> None:
        """Release the engine; the target stays open."""
        self._forget()
        self._thread.shutdown()

    def _follow(self, layout: Layout) -> None:
        if layout != self._layout:
            self._forget()
            self._layout = layout

    def _forget(self) -> None:
        if self._ahead is not None:
            wait([self._ahead.batch])
            self._ahead = None
        if self._staging is not None:
            self._staging.close()
            self._staging = None

    def _stage_ahead(self, landed: _Landed, expected: SchemaState) -> None:
        """Stage the batch after this one while this one is merged, if there is one to come."""
        if self._pending(landed, expected):
            future = self._thread.submit(self._next_batch, landed, expected)
            self._ahead = _Ahead(expected, landed.erasures, future)

    def _staged_ahead(self, landed: _Landed, state: SchemaState) -> Batch | None:
        """Return what was staged ahead, unless somebody else changed the schema meanwhile."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        try:
            batch = ahead.batch.result()
        except BaseException:
            self._forget()
            raise
        is_current = ahead.erasures is landed.erasures
        if batch is not None and is_current and ahead.expected.holds_as_much_as(state):
            return batch
        self._forget()
        return None

    def _next_batch(self, landed: _Landed, state: SchemaState) -> Batch | None:
        """Stage the oldest sound files; None when there is none."""
        while selected := self._select(self._pending(landed, state)):
            batch = self._stage(selected, landed, state)
            if batch is not None:
                return batch
        return None

    def _warn_of_lost(self, landed: _Landed, state: SchemaState) -> None:
        """Say once when the warehouse lacks what landing has no more."""
        if self._expirations is None:
            return
        gone, self._expirations = self._expirations.gone(landed.files), None
        nothing = OffsetSet()
        lost = sum(len(gone[writer].without(state.loaded.get(writer, nothing))) for writer in gone)
        if lost:
            _log.warning(
                "%s: %s deliveries were loaded and removed from landing, and the warehouse has them"
                " no more: restore it from a backup.",
                self.schema,
                lost,
            )

    def _landed(self) -> _Landed:
        return _Landed(self._listing.files(), self._releases.offsets(), self._erasures.read())

    def _pending(self, landed: _Landed, state: SchemaState) -> list[LandingFile]:
        pending = pending_files(landed.files, state.settled(landed.released))
        return [file for file in pending if file not in self.damaged]

    def _select(self, pending: Sequence[LandingFile]) -> list[LandingFile]:
        """Return the oldest sound files, up to the size of a batch."""
        selected: list[LandingFile] = []
        size = deliveries = 0
        for file in pending:
            if selected and (deliveries >= MAX_BATCH_DELIVERIES or size >= MAX_BATCH_BYTES):
                break
            file_size = self._size_if_sound(file)
            if file_size is not None:
                selected.append(file)
                deliveries += file.last - file.first + 1
                size += file_size
        return selected

    def _size_if_sound(self, file: LandingFile, *, whole: bool = False) -> int | None:
        try:
            return check_file(self._landing, file, whole=whole)
        except LandingError as error:
            if not is_superseded(self._landing, file):
                self.damaged[file] = error
            return None

    def _stage(
        self, files: Sequence[LandingFile], landed: _Landed, state: SchemaState
    ) -> Batch | None:
        """Stage files; None when one of them turned out to be damaged within."""
        batched_at = datetime.now(UTC)
        staging = self._warm_staging(state)
        released = landed.released
        if self._erased.erasures is not landed.erasures:
            self._erased = Erased(landed.erasures)
        settled = state.settled(released)
        try:
            staged = staging.stage(
                [
                    Source(
                        file.path(self._landing),
                        file.writer,
                        file.last - file.first + 1,
                        settled.get(file.writer, OffsetSet()).within(file.first, file.last),
                        released.get(file.writer, OffsetSet()).within(file.first, file.last),
                    )
                    for file in files
                ],
                batched_at,
                self._erased,
            )
        except (duckdb.Error, LandingError):
            if all(self._size_if_sound(file, whole=True) is not None for file in files):
                raise
            return None
        offsets: defaultdict[str, OffsetSet] = defaultdict(OffsetSet)
        for file in files:
            offsets[file.writer].add(file.first, file.last)
        reopened = {
            writer: those.common(offsets[writer])
            for writer, those in state.reopened(released).items()
            if writer in offsets
        }
        return Batch(
            load_id=uuid4().hex,
            batched_at=batched_at,
            run_id=self._run_id,
            mappings=staging.take_new(),
            loaded={writer: list(intervals) for writer, intervals in offsets.items()},
            released={writer: those for writer, those in reopened.items() if len(those)},
            files=len(files),
            **staged._asdict(),
        )

    def _warm_staging(self, state: SchemaState) -> Staging:
        if self._staging is None or not self._staging.continues(state):
            if self._staging is not None:
                self._staging.close()
            self._staging = Staging(state, self._layout)
        return self._staging


def drain(
    loader: Loader, *, idle_seconds: float = 0, is_over: Callable[[], bool] = lambda: False
) -> Iterator[LoadReport]:
    """Load batch after batch until nothing came for `idle_seconds`, or `is_over` says so.

    Raises:
        LandingError: at the end, when a damaged file had to be left out.
        WarehouseError: as `Loader.load_next`.
    """
    last_load = time.monotonic()
    try:
        while not is_over():
            try:
                report = loader.load_next()
            except WarehouseReplacedError:
                continue  # what the lost one held is pending again
            if report is not None:
                yield report
                last_load = time.monotonic()
            elif time.monotonic() - last_load >= idle_seconds:
                break
            else:
                time.sleep(POLL_SECONDS)
            loader.publish()
    finally:
        loader.publish(force=True)
    for error in loader.damage():
        raise error
