"""Tracing an event: every delivery of it in landing, and what became of each."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from customerio_pipeline.errors import LandingError
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.decoding import Rejected, read_events
from customerio_pipeline.loading.engine import quoted
from customerio_pipeline.loading.target import Reader
from customerio_pipeline.verifying.fates import Fates, Place, rejection_reasons

# Statistics and Bloom filters of the files leave next to nothing to read.
_DELIVERIES = """
SELECT filename, file_row_number, writer, "offset", _sdc_sequence, received_at, url_id, signature
FROM read_parquet(?, filename = true, file_row_number = true, hive_partitioning = false)
WHERE {condition}
"""


@dataclass(frozen=True, slots=True)
class TracedDelivery:
    """One delivery of the event."""

    received_at: datetime
    url_id: str
    signature: str
    """Verdict on the signature."""

    writer: str
    offset: int
    sequence: int
    file: str
    """Below the landing folder."""

    row: int
    """In the file, the first is 0."""

    fate: str
    """``in data``, ``superseded``, ``rejected: …``, ``held`` or ``waiting``."""


@dataclass(frozen=True, slots=True)
class LoadOfRow:
    """The load that wrote the row that is in the table now."""

    load_id: str
    batched_at: datetime
    run_id: str | None
    """Of Dagster; None when the command line loaded."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of an event."""

    schema: str
    event_id: str
    deliveries: Sequence[TracedDelivery]
    """In the order in which later ones win (design C5)."""

    load: LoadOfRow | None
    row: Mapping[str, object] | None
    """The row of `data`, without nulls."""

    @property
    def is_known(self) -> bool:
        """Whether anything was found."""
        return bool(self.deliveries) or self.row is not None


def trace(
    reader: Reader, landing: Path, schema: str, event_id: str, *, everywhere: bool = False
) -> Trace:
    """Find an event.

    Args:
        reader: of the warehouse.
        landing: folder of the landing files.
        schema: of the integration.
        event_id: of the event.
        everywhere: look into every delivery whose own event_id could not be read at receipt:
            compressed ones, and arrays of several events. Their bodies have to be read.

    Raises:
        LandingError: the landing files cannot be read.
        WarehouseError: the warehouse cannot be read.
    """
    state = reader.state(schema)
    columns = state.table_columns
    row = _row(reader, schema, columns, event_id) if "event_id" in columns else None
    with kept_still(landing, schema), closing(duckdb.connect()) as engine:
        files = LandingListing(landing, schema).files()
        engine.execute("SET TimeZone = 'UTC'")
        try:
            found = dict(_in_landing(engine, landing, files, event_id, row))
            if everywhere:
                found.update(_in_bodies(engine, landing, files, event_id))
        except duckdb.Error as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise LandingError(f"The landing files cannot be read: {reason}.") from None
    released = Releases(landing, schema).offsets()
    fates = Fates(
        settled=state.settled(released),
        held=state.held,
        reasons=rejection_reasons(reader, schema, found) if found and columns else {},
        in_data=[_place(row)] if row else [],
    )
    deliveries = []
    for place, (received_at, url_id, signature, sequence, file, number) in found.items():
        fate = fates.of(place)
        deliveries.append(
            TracedDelivery(received_at, url_id, signature, *place, sequence, file, number, fate)
        )
    return Trace(
        schema,
        event_id,
        sorted(deliveries, key=lambda each: (each.sequence, each.writer, each.offset)),
        _load(reader, schema, row) if row else None,
        row,
    )


_Found = tuple[Place, tuple[datetime, str, str, int, str, int]]


def _in_landing(
    engine: duckdb.DuckDBPyConnection,
    landing: Path,
    files: Sequence[LandingFile],
    event_id: str,
    row: Mapping[str, object] | None,
) -> Iterator[_Found]:
    """Yield the deliveries of that event_id, and the one that the row came with."""
    if files:
        yield from _deliveries(engine, landing, files, "event_id = ?", [event_id])
    if row is not None:
        # One of several events in a body, which has no event_id of its own.
        yield from _delivery(engine, landing, files, _place(row))


def _in_bodies(
    engine: duckdb.DuckDBPyConnection, landing: Path, files: Sequence[LandingFile], event_id: str
) -> Iterator[_Found]:
    if not files:
        return
    rows = engine.execute(
        'SELECT writer, "offset", body, content_encoding'
        " FROM read_parquet(?, hive_partitioning = false) WHERE event_id IS NULL",
        [_paths(landing, files)],
    )
    places: list[Place] = []
    while some := rows.fetchmany(1000):
        places += [
            (writer, offset)
            for writer, offset, body, encoding in some
            if any(
                not isinstance(event, Rejected) and event["event_id"] == event_id
                for event in read_events(body, encoding)
            )
        ]
    for place in places:
        yield from _delivery(engine, landing, files, place)


def _delivery(
    engine: duckdb.DuckDBPyConnection, landing: Path, files: Sequence[LandingFile], place: Place
) -> Iterator[_Found]:
    writer, offset = place
    holding = [
        file for file in files if file.writer == writer and file.first <= offset <= file.last
    ]
    if holding:
        yield from _deliveries(engine, landing, holding, '"offset" = ?', [offset])


def _deliveries(
    engine: duckdb.DuckDBPyConnection,
    landing: Path,
    files: Sequence[LandingFile],
    condition: str,
    parameters: Sequence[object],
) -> Iterator[_Found]:
    rows = engine.execute(
        _DELIVERIES.format(condition=condition), [_paths(landing, files), *parameters]
    ).fetchall()
    for path, number, writer, offset, sequence, received_at, url_id, signature in rows:
        file = str(Path(path).relative_to(landing))
        yield (writer, offset), (received_at, url_id, signature, sequence, file, number)


def _paths(landing: Path, files: Sequence[LandingFile]) -> list[str]:
    return [str(file.path(landing)) for file in files]


def _place(row: Mapping[str, object]) -> Place:
    return str(row.get("_sdc_writer")), int(str(row.get("_sdc_offset", -1)))


def _row(
    reader: Reader, schema: str, columns: Iterable[str], event_id: str
) -> Mapping[str, object] | None:
    names = ", ".join(map(quoted, columns))
    result = reader.query(
        f'SELECT {names} FROM "{schema}".data WHERE event_id = $1',
        [event_id],
    )
    if not result.rows:
        return None
    return {
        name: value
        for name, value in zip(result.columns, result.rows[0], strict=True)
        if value is not None
    }


def _load(reader: Reader, schema: str, row: Mapping[str, object]) -> LoadOfRow | None:
    result = reader.query(
        f'SELECT load_id, batched_at, run_id FROM "{schema}"._sdc_loads WHERE batched_at = $1',
        [row.get("_sdc_batched_at")],
    )
    if not result.rows:
        return None
    return LoadOfRow(*result.rows[0])  # type: ignore[arg-type]  # the columns' types
