"""Landing files: their names, what is in them, and that there are whole ones only."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.folders import make_folders
from customerio_pipeline.landing.listing import LandingListing, landed_offsets
from customerio_pipeline.landing.writing import (
    LANDING_SCHEMA,
    read_event_id,
    write_landing_file,
)

SEALED_AT = datetime(2026, 11, 23, 16, 59, 59, tzinfo=UTC)
RECEIVED_NS = 1_795_453_199_123_456_789


def delivery(offset: int, body: bytes = b"{}", headers: Sequence[str | None] = ()) -> Delivery:
    """Return a delivery of the writer ``w1``."""
    values = tuple(headers) or (None,) * len(LANDED_HEADERS)
    return Delivery(
        "w1", offset, RECEIVED_NS + offset, RECEIVED_NS, "url_1", "unchecked", values, body
    )


def file(first: int, last: int, schema: str = "stitch_customerio") -> LandingFile:
    """Return the name of a file of the writer ``w1``."""
    return LandingFile.sealed_at(SEALED_AT, schema=schema, writer="w1", first=first, last=last)


def test_a_name_says_everything(tmp_path: Path) -> None:
    """Integration, hour of sealing in UTC, writer and offsets; nothing else decides the path."""
    eastern = SEALED_AT.astimezone(timezone(timedelta(hours=-5)))
    named = LandingFile.sealed_at(eastern, schema="acme", writer="0a1b2c3d4e", first=7, last=1234)
    assert named.relative_path == (
        "integration=acme/date=2026-11-23/hour=16/0a1b2c3d4e-000000000007-000000001234.parquet"
    )
    assert named.path(tmp_path) == tmp_path / named.relative_path


@settings(deadline=None)
@given(
    moment=st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC)),  # noqa: DTZ001
    schema=st.from_regex(r"[a-z_][a-z0-9_]{0,62}", fullmatch=True),
    writer=st.from_regex(r"[0-9a-z]{1,10}", fullmatch=True),
    offsets=st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)).map(sorted),
)
def test_a_name_can_be_read_back(
    moment: datetime, schema: str, writer: str, offsets: list[int]
) -> None:
    """A path gives the same file again."""
    first, last = offsets
    named = LandingFile.sealed_at(moment, schema=schema, writer=writer, first=first, last=last)
    assert LandingFile.from_path(named.relative_path) == named


@pytest.mark.parametrize(
    "path",
    [
        "integration=a/date=2026-11-23/hour=16/.w-0-1.parquet.tmp",
        "integration=a/date=2026-11-23/hour=16/w-0-1.parquet.bak",
        "integration=a/date=2026-11-23/hour=16/w-0.parquet",
        "integration=a/date=today/hour=16/w-0-1.parquet",
        "integration=a/w-0-1.parquet",
        "notes.txt",
    ],
)
def test_other_files_are_no_landing_files(path: str) -> None:
    """What people put beside landing files is left out."""
    assert LandingFile.from_path(path) is None


def test_a_file_gives_back_what_was_delivered(tmp_path: Path) -> None:
    """Every column holds what the delivery said, times in microseconds, the body in bytes."""
    headers = ("application/json", "gzip", "agent", "1613063089", "ab" * 32)
    first = delivery(5, b'{"event_id":"01E4"}', headers)
    second = delivery(6, b"\x00\xff")
    path = write_landing_file(tmp_path, file(5, 6), [[first], [second]])
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(LANDING_SCHEMA)
    assert table.to_pylist() == [
        {
            "writer": "w1",
            "offset": 5,
            "_sdc_sequence": RECEIVED_NS + 5,
            "received_at": datetime.fromtimestamp(RECEIVED_NS // 10**9, UTC).replace(
                microsecond=123456
            ),
            "url_id": "url_1",
            "signature": "unchecked",
            "content_type": "application/json",
            "content_encoding": "gzip",
            "user_agent": "agent",
            "x_cio_timestamp": "1613063089",
            "x_cio_signature": "ab" * 32,
            "event_id": "01E4",
            "body": b'{"event_id":"01E4"}',
        },
        {
            "writer": "w1",
            "offset": 6,
            "_sdc_sequence": RECEIVED_NS + 6,
            "received_at": table["received_at"][0].as_py(),
            "url_id": "url_1",
            "signature": "unchecked",
            "content_type": None,
            "content_encoding": None,
            "user_agent": None,
            "x_cio_timestamp": None,
            "x_cio_signature": None,
            "event_id": None,
            "body": b"\x00\xff",
        },
    ]


def test_each_row_group_is_what_was_handed_over(tmp_path: Path) -> None:
    """Memory holds one row group at a time; all are compressed with zstd."""
    groups = [[delivery(0), delivery(1)], [delivery(2)]]
    path = write_landing_file(tmp_path, file(0, 2), iter(groups))
    with pq.ParquetFile(path) as parquet:
        metadata = parquet.metadata
    assert [metadata.row_group(at).num_rows for at in range(2)] == [2, 1]
    body = metadata.row_group(0).column(len(LANDING_SCHEMA) - 1)
    assert (body.path_in_schema, body.compression) == ("body", "ZSTD")


def test_a_repeat_writes_the_same_file(tmp_path: Path) -> None:
    """The same deliveries give the same bytes, in place of the file that was there."""
    path = write_landing_file(tmp_path, file(0, 1), [[delivery(0), delivery(1)]])
    before = path.read_bytes()
    assert write_landing_file(tmp_path, file(0, 1), [[delivery(0), delivery(1)]]) == path
    assert path.read_bytes() == before
    assert [path] == [found for found in tmp_path.rglob("*") if found.is_file()]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """When deliveries cannot be read to the end, no file is to be seen, nor a part of one."""

    def failing() -> object:
        yield [delivery(0)]
        raise OSError("the disk failed")

    with pytest.raises(OSError, match="the disk failed"):
        write_landing_file(tmp_path, file(0, 1), failing())  # type: ignore[arg-type]
    assert not [found for found in tmp_path.rglob("*") if found.is_file()]


def test_every_reader_finds_the_hive_folders(tmp_path: Path) -> None:
    """DuckDB and PyArrow read the landing folder as one table partitioned by its folders."""
    for schema, first in (("one", 0), ("one", 2), ("two", 0)):
        deliveries = [delivery(first), delivery(first + 1)]
        write_landing_file(tmp_path, file(first, first + 1, schema), [deliveries])
    (tmp_path / "integration=one/date=2026-11-23/hour=16/.w1-4-5.parquet.tmp").write_bytes(b"half")

    sql = """
        SELECT integration, date, hour, "offset"
        FROM read_parquet(?, hive_partitioning = true) ORDER BY ALL
    """
    with duckdb.connect() as connection:
        rows = connection.execute(sql, [f"{tmp_path}/**/*.parquet"]).fetchall()
    day = SEALED_AT.date()
    assert rows == [
        *(("one", day, 16, offset) for offset in range(4)),
        *(("two", day, 16, offset) for offset in range(2)),
    ]

    partitions = pa.schema(
        [("integration", pa.string()), ("date", pa.string()), ("hour", pa.int8())]
    )
    dataset = ds.dataset(tmp_path, partitioning=ds.partitioning(partitions, flavor="hive"))
    table = dataset.to_table(filter=ds.field("integration") == "one")
    assert sorted(table["offset"].to_pylist()) == [0, 1, 2, 3]
    assert set(table["hour"].to_pylist()) == {16}


@pytest.mark.parametrize(
    ("body", "event_id"),
    [
        (
            b'{"event_id":"01E4C4CT6YDC7Y5M7FE1GWWPQJ","metric":"sent"}',
            "01E4C4CT6YDC7Y5M7FE1GWWPQJ",
        ),
        ('{"event_id":"ü\\u00fc\U0001f600"}'.encode(), "üü\U0001f600"),
        (b'{"event_id":""}', ""),
        (b'{"event_id":null}', None),
        (b'{"event_id":7}', None),
        (b'{"event_id":"\\ud800"}', None),
        (b'{"event_id":"a"', None),
        (b'[{"event_id":"a"}]', None),
        (b'{"metric":"sent"}', None),
        (b'"event_id"', None),
        (b"null", None),
        (b"", None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"event_id":"a","deep":' + b"[" * 100_000, None),
    ],
)
def test_the_event_id_is_read_where_it_can_be(body: bytes, event_id: str | None) -> None:
    """One JSON object with a text id has one; whatever else it is, the body is landed without."""
    assert read_event_id(body) == event_id


@settings(deadline=None)
@given(body=st.binary(max_size=200))
def test_no_body_keeps_a_file_from_being_written(body: bytes) -> None:
    """Reading the event_id never fails."""
    assert read_event_id(body) is None or b"event_id" in body


def test_a_listing_finds_new_files_and_reads_changed_folders_only(tmp_path: Path) -> None:
    """Files show up whenever they come, also in old folders; others' files do not."""
    listing = LandingListing(tmp_path, "one")
    assert listing.files() == []
    first, second = file(0, 1, "one"), file(2, 2, "one")
    old = LandingFile.sealed_at(
        SEALED_AT - timedelta(days=400), schema="one", writer="w2", first=0, last=3
    )
    for landed in (first, file(0, 0, "two")):
        write_landing_file(tmp_path, landed, [[delivery(0)]])
    assert listing.files() == [first]
    for landed in (second, old):
        write_landing_file(tmp_path, landed, [[delivery(0)]])
    assert listing.files() == [old, first, second]
    offsets = landed_offsets(listing.files())
    assert {writer: list(found) for writer, found in offsets.items()} == {
        "w1": [(0, 2)],
        "w2": [(0, 3)],
    }
    settled = time.time() - 60
    folder = first.path(tmp_path).parent
    os.utime(folder, (settled, settled))
    listing.files()
    first.path(tmp_path).unlink()
    os.utime(folder, (settled, settled))
    assert first in listing.files()
    os.utime(folder)
    assert listing.files() == [old, second]


def test_folders_are_made_up_to_the_top(tmp_path: Path) -> None:
    """Missing ones are created, existing ones kept, and a file in the way is an error."""
    make_folders(tmp_path / "a" / "b" / "c")
    make_folders(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_folders(tmp_path / "file" / "d")
