"""Looking at deliveries one by one: the newest of an integration, and any by its name."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import duckdb

from customerio_pipeline.errors import LandingError, WarehouseError
from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.listing import LandingListing
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import Releases
from customerio_pipeline.landing.signatures import ERASED, HELD_VERDICTS
from customerio_pipeline.landing.stillness import kept_still
from customerio_pipeline.loading.decoding import read_events
from customerio_pipeline.loading.target import Reader
from customerio_pipeline.verifying.fates import Place, read_fates

LONGEST_BODY = 256 * 1024
"""Bytes up to which the bodies of the newest deliveries are looked into."""

UNKNOWN = "unknown"
"""The fate while the warehouse cannot be read."""

_NEWEST = """
SELECT received_at, url_id, signature, writer, "offset", _sdc_sequence, octet_length(body) AS size,
       CASE WHEN octet_length(body) <= {longest} THEN body END, content_encoding
FROM read_parquet(?, hive_partitioning = false)
WHERE {condition}
ORDER BY _sdc_sequence DESC, writer DESC, "offset" DESC
LIMIT {limit}
"""

_HELD = f"""
SELECT writer, "offset"
FROM read_parquet(?, hive_partitioning = false)
WHERE signature IN ({", ".join(f"'{verdict}'" for verdict in HELD_VERDICTS)})
ORDER BY _sdc_sequence DESC, writer DESC, "offset" DESC
"""
_AT_ONCE = 1000

_HEADERS = [name.replace("-", "_") for name in LANDED_HEADERS]
_ONE = f"""
SELECT received_at, url_id, signature, _sdc_sequence, body, filename, file_row_number,
       {", ".join(_HEADERS)}
FROM read_parquet(?, filename = true, file_row_number = true, hive_partitioning = false)
WHERE "offset" = ?
"""


@dataclass(frozen=True, slots=True)
class RecentDelivery:
    """A delivery as a line of a list."""

    received_at: datetime
    url_id: str
    signature: str
    """Verdict on the signature."""

    writer: str
    offset: int
    size: int
    """Bytes of the body."""

    events: Sequence[Mapping[str, object]]
    """Usable events of the body; none when it is longer than `LONGEST_BODY`."""

    fate: str
    """As `Fates.of`, or `UNKNOWN`, or `ERASED`."""


@dataclass(frozen=True, slots=True)
class WholeDelivery:
    """All that is landed of a delivery."""

    received_at: datetime
    url_id: str
    signature: str
    sequence: int
    headers: Mapping[str, str]
    """Those that were sent, by the names of their landing columns."""

    body: bytes
    file: str
    """Below the landing folder."""

    row: int
    """In the file, the first is 0."""

    events: Sequence[Mapping[str, object]]
    """Usable events of the body."""

    fate: str


def newest_deliveries(
    reader: Reader, landing: Path, schema: str, limit: int, *, only_held: bool = False
) -> list[RecentDelivery]:
    """Return the newest deliveries, the newest first.

    Args:
        reader: of the warehouse.
        landing: folder of the landing files.
        schema: of the integration.
        limit: how many at most.
        only_held: only what landing holds back now, whether or not a load has seen it.

    Raises:
        LandingError: the landing files cannot be read.
    """
    with kept_still(landing, schema), _engine() as engine:
        files = LandingListing(landing, schema).files()
        if only_held:
            compared = "="
            parts = _held(engine, landing, schema, files, limit)
        else:
            # Sequences rise within a writer, so its newest deliveries are its last.
            compared = ">="
            parts = list(_tails(files, limit))
        if not parts:
            return []
        condition = " OR ".join(f'(writer = ? AND "offset" {compared} ?)' for _ in parts)
        query = _NEWEST.format(condition=condition, limit=limit, longest=LONGEST_BODY)
        paths = {str(file.path(landing)) for _, _, those in parts for file in those}
        bounds = [part for writer, offset, _ in parts for part in (writer, offset)]
        rows = engine.execute(query, [sorted(paths), *bounds]).fetchall()
    found = [
        (row, [] if body is None else _events(body, encoding)) for *row, body, encoding in rows
    ]
    fate_of = _fates(
        reader, landing, schema, {(row[3], row[4]): _event_ids(events) for row, events in found}
    )
    return [
        RecentDelivery(
            received_at,
            url_id,
            signature,
            writer,
            offset,
            size,
            events,
            ERASED if signature == ERASED else fate_of((writer, offset)),
        )
        for (received_at, url_id, signature, writer, offset, _, size), events in found
    ]


def find_delivery(reader: Reader, landing: Path, schema: str, place: Place) -> WholeDelivery | None:
    """Return a delivery; None when it is in no landing file.

    Raises:
        LandingError: the landing files cannot be read.
    """
    writer, offset = place
    with kept_still(landing, schema):
        paths = [
            str(file.path(landing))
            for file in LandingListing(landing, schema).files()
            if file.writer == writer and file.first <= offset <= file.last
        ]
        if not paths:
            return None
        with _engine() as engine:
            row = engine.execute(_ONE, [paths, offset]).fetchone()
    if row is None:
        return None
    received_at, url_id, signature, sequence, body, path, number, *headers = row
    given = {
        name: value for name, value in zip(_HEADERS, headers, strict=True) if value is not None
    }
    events = _events(body, given.get("content_encoding"))
    fate_of = _fates(reader, landing, schema, {place: _event_ids(events)})
    return WholeDelivery(
        received_at,
        url_id,
        signature,
        sequence,
        given,
        body,
        str(Path(path).relative_to(landing)),
        number,
        events,
        ERASED if signature == ERASED else fate_of(place),
    )


_Part = tuple[str, int, Sequence[LandingFile]]
"""A writer, one of its offsets, and the files to look into."""


def _held(
    engine: duckdb.DuckDBPyConnection,
    landing: Path,
    schema: str,
    files: Sequence[LandingFile],
    limit: int,
) -> list[_Part]:
    """Return the newest deliveries that are held and not released, each with its files."""
    if not files:
        return []
    released = Releases(landing, schema).offsets()
    rows = engine.execute(_HELD, [[str(file.path(landing)) for file in files]])
    places: list[Place] = []
    while len(places) < limit and (some := rows.fetchmany(_AT_ONCE)):
        places += [
            (writer, offset)
            for writer, offset in some
            if not released.get(writer, OffsetSet()).covers(offset, offset)
        ]
    return [
        (
            writer,
            offset,
            [file for file in files if file.writer == writer and file.first <= offset <= file.last],
        )
        for writer, offset in places[:limit]
    ]


def _tails(files: Sequence[LandingFile], limit: int) -> Iterator[_Part]:
    """Yield, for each writer, the first of its last `limit` offsets and the files with them."""
    by_writer: dict[str, list[LandingFile]] = {}
    for file in files:
        by_writer.setdefault(file.writer, []).append(file)
    for writer, those in by_writer.items():
        first = max(file.last for file in those) - limit + 1
        yield writer, first, [file for file in those if file.last >= first]


def _fates(
    reader: Reader, landing: Path, schema: str, deliveries: Mapping[Place, Collection[str]]
) -> Callable[[Place], str]:
    try:
        state = reader.state(schema)
        released = Releases(landing, schema).offsets()
        return read_fates(reader, schema, state, released, deliveries).of
    except WarehouseError:
        return lambda _: UNKNOWN


def _events(body: bytes, content_encoding: str | None) -> list[Mapping[str, object]]:
    return [event for event in read_events(body, content_encoding) if type(event) is dict]


def _event_ids(events: Sequence[Mapping[str, object]]) -> set[str]:
    return {str(event["event_id"]) for event in events}


@contextmanager
def _engine() -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        # One thread: whoever looks shall not slow down who receives.
        with closing(duckdb.connect(config={"threads": 1})) as engine:
            engine.execute("SET TimeZone = 'UTC'")
            yield engine
    except duckdb.Error as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise LandingError(f"The landing files cannot be read: {reason}.") from None
