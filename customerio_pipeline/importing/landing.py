"""Landing what an import reads: files of a writer of its own, all of them once.

The writer's id is a hash of the records. So a file that is imported again, whatever its name or
compression, is the same writer with the same offsets, cut into the same landing files: those that
are there stay, those that an import did not get to are written.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from customerio_pipeline.errors import ImportBusyError
from customerio_pipeline.importing.records import Record, Source
from customerio_pipeline.importing.times import event_time_ns
from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.erasures import Erasures
from customerio_pipeline.landing.expiry import Expirations
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import make_folders, sync_folder
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.signatures import ERASED
from customerio_pipeline.landing.writing import row_groups, write_landing_file
from customerio_pipeline.loading.erased import Erased, rest_of

URL_ID = "import"
"""What landing files have in the place of a webhook URL's id."""

FILE_RECORDS = 50_000
FILE_BYTES = 64 * 1024 * 1024
"""Size of a landing file's bodies. Both are part of what a writer's files are called: with others,
an import that was interrupted would be completed with files that overlap."""

_WRITER_PREFIX = "import"
_ENCODING_AT = LANDED_HEADERS.index("content-encoding")
_DIGEST_BYTES = 10


class Identified(NamedTuple):
    """A source that was read to its end once."""

    source: Source
    writer: str
    records: int


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a source."""

    file: str
    """As the user gave it."""

    writer: str
    records: int
    landed: int
    """Those of them that were landed now; the others were by an import before."""


def identify(
    source: Source, received_at_ns: int | None, progress: Callable[[int], None] = lambda _: None
) -> Identified:
    """Read a source to its end; return it with the id of its writer.

    Args:
        source: what is to be landed.
        received_at_ns: as in `land`; it makes other rows, hence another writer.
        progress: called with 1 for each record.

    Raises:
        ImportFileError: it cannot be read to its end.
    """
    digest = hashlib.blake2b(f"{received_at_ns}".encode(), digest_size=_DIGEST_BYTES)
    records = 0
    for record in source.records():
        body, *more = record
        digest.update(b"%d %r " % (len(body), more))
        digest.update(body)
        records += 1
        progress(1)
    return Identified(source, _WRITER_PREFIX + digest.hexdigest(), records)


def land(
    landing: Path,
    schema: str,
    identified: Identified,
    received_at_ns: int | None,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Land those records of a source that are not landed yet; durable when it returns.

    A record without a sequence of its own gets that of the time at which it counts as received:
    `received_at_ns`, or the time of its event, or that of the record before it.

    Args:
        landing: folder of the landing files.
        schema: of the integration.
        identified: the source.
        received_at_ns: receipt of every record that does not say its own, ns since the epoch.
        progress: called with the number of records done since the last call.

    Raises:
        ImportBusyError: another import into the integration is under way.
        LandingError: the record of what expired cannot be read.
        ImportFileError: the source changed since it was identified and cannot be read any more.
        OSError: landing cannot be written; a repeat lands what is missing.
    """
    folder = landing / f"integration={schema}"
    make_folders(folder)
    writer = identified.writer
    landed = 0
    with _alone(folder, schema):
        _remove_halves(folder, writer)
        files = [file for file in LandingListing(landing, schema).files() if file.writer == writer]
        expired = Expirations(landing, schema)
        expired.check_readable()
        present = landed_offsets(files, expired.offsets()).get(writer, OffsetSet())
        # Whoever wrote them may have died before their names were durable.
        for hour in {file.path(landing).parent for file in files}:
            sync_folder(hour)
        erased = Erased(Erasures(landing, schema).read())
        for deliveries in _files(_deliveries(identified, received_at_ns)):
            first, last = deliveries[0].offset, deliveries[-1].offset
            # Compaction may have put several files into one, and retention have removed some.
            if not present.covers(first, last):
                file = LandingFile.sealed_at(
                    datetime.now(UTC), schema=schema, writer=writer, first=first, last=last
                )
                those = [_without_erased(each, erased) for each in deliveries]
                write_landing_file(landing, file, row_groups(those))
                landed += len(deliveries)
            progress(len(deliveries))
    return Imported(identified.source.name, writer, identified.records, landed)


def _deliveries(identified: Identified, received_at_ns: int | None) -> Iterator[Delivery]:
    now_ns = time.time_ns()
    time_ns = 0
    for offset, record in enumerate(identified.source.records()):
        if record.sequence is None or record.received_ns is None:
            time_ns = received_at_ns or _time(record, now_ns, time_ns)
        yield Delivery(
            writer=identified.writer,
            offset=offset,
            sequence=time_ns if record.sequence is None else record.sequence,
            received_ns=time_ns if record.received_ns is None else record.received_ns,
            url_id=URL_ID,
            signature=record.signature,
            headers=record.headers,
            body=record.body,
        )


def _without_erased(delivery: Delivery, erased: Erased) -> Delivery:
    """Leave out what was erased; the offset stays, so that a repeat finds it landed."""
    if not erased:
        return delivery
    encoding = delivery.headers[_ENCODING_AT]
    rest = rest_of(delivery.body, encoding, delivery.received_ns // 1000, erased)
    if rest is None:
        return delivery
    return msgspec.structs.replace(
        delivery,
        body=rest.body or b"",
        headers=(None,) * len(LANDED_HEADERS),
        signature=delivery.signature if rest.body else ERASED,
    )


def _time(record: Record, now_ns: int, before_ns: int) -> int:
    time_ns = event_time_ns(record.body, now_ns)
    return before_ns if time_ns is None else time_ns


def _files(deliveries: Iterator[Delivery]) -> Iterator[list[Delivery]]:
    """Cut deliveries into those of one landing file each."""
    chunk: list[Delivery] = []
    size = 0
    for delivery in deliveries:
        if chunk and (len(chunk) == FILE_RECORDS or size + len(delivery.body) > FILE_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(delivery)
        size += len(delivery.body)
    if chunk:
        yield chunk


@contextmanager
def _alone(folder: Path, schema: str) -> Iterator[None]:
    """Keep other imports out: two of the same file would land it in two hours' folders."""
    descriptor = os.open(folder / ".import.lock", os.O_RDWR | os.O_CREAT, 0o640)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ImportBusyError(
                f"Another import into {schema} is under way; repeat this one when it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)


def _remove_halves(folder: Path, writer: str) -> None:
    """Remove what a killed import had begun to write: in this hour it is written elsewhere."""
    for half in folder.glob(f"date=*/hour=*/.{writer}-*.tmp"):
        half.unlink()
