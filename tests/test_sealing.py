"""Sealing: idempotent whatever happens in between, nothing lost, nothing twice (design C3)."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.writing import row_groups
from receiver import sealing
from receiver.sealing import fix_hour, land, seal_once
from receiver.slots import list_segments
from tests.running_receiver import check_offsets, landed_rows
from tests.spool_contents import (
    SCHEMA,
    journal_with,
    newest_segment,
    receipt,
    segment_numbers,
    store,
)

PROJECT = Path(__file__).parent.parent
LONG_AGO = datetime(2020, 2, 29, 23, 59, 59, tzinfo=UTC)


def contents(landing: Path) -> dict[str, bytes]:
    """Return every file of a landing folder by its relative path."""
    return {
        str(path.relative_to(landing)): path.read_bytes()
        for path in landing.rglob("*")
        if path.is_file()
    }


def bodies(landing: Path, schema: str = SCHEMA) -> list[bytes]:
    """Return the landed bodies by offset, which have no gap."""
    rows = landed_rows(landing, schema)
    check_offsets(rows)
    return [row["body"] for row in rows]


def delivery(body: bytes) -> Delivery:
    """Return a delivery."""
    return Delivery("writer", 0, 1, 1, "url_1", "unchecked", (None,) * len(LANDED_HEADERS), body)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "spool"


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    """Where the landing folder will be."""
    return tmp_path / "landing"


def test_a_closed_segment_becomes_one_file_per_integration(spool: Path, landing: Path) -> None:
    """The file's name says schema, hour, writer and offsets; the segment is gone after."""
    journal = journal_with(spool, [[b"a", b"b"]])
    store(journal, b"other", schema="other")
    store(journal, b"c")
    journal.begin_segment()
    before = datetime.now(UTC)
    files = seal_once(spool, landing)
    assert {(file.schema, file.first, file.last) for file in files} == {
        (SCHEMA, 0, 2),
        ("other", 0, 0),
    }
    assert {file.day for file in files} <= {before.date(), datetime.now(UTC).date()}
    assert bodies(landing) == [b"a", b"b", b"c"]
    assert bodies(landing, "other") == [b"other"]
    assert segment_numbers(spool) == [("0", 2)]
    journal.close()


def test_a_living_workers_newest_segment_is_left_to_it(spool: Path, landing: Path) -> None:
    """Only its worker may close a segment; after the worker's end the sealer does."""
    journal = journal_with(spool, [[b"a"]])
    assert seal_once(spool, landing) == []
    journal.close()
    assert len(seal_once(spool, landing)) == 1
    assert segment_numbers(spool) == [("0", 2)]
    successor = journal_with(spool, [[b"b"]])
    successor.close()
    seal_once(spool, landing)
    assert bodies(landing) == [b"a", b"b"]


def test_an_idle_spool_is_left_alone(spool: Path, landing: Path) -> None:
    """Sealing nothing writes nothing, however often, and needs neither folder."""
    assert seal_once(spool, landing) == []
    journal_with(spool).close()
    for _ in range(3):
        assert seal_once(spool, landing) == []
    assert segment_numbers(spool) == [("0", 1)]
    assert not landing.exists()


def test_a_torn_tail_is_sealed_up_to_the_tear(spool: Path, landing: Path) -> None:
    """What a dead worker wrote in part is not landed, and its offset is used again."""
    journal_with(spool, [[b"a"], [b"b"]]).close()
    segment = newest_segment(spool)
    segment.write_bytes(segment.read_bytes()[:-1])
    seal_once(spool, landing)
    assert bodies(landing) == [b"a"]
    journal_with(spool, [[b"c"]]).close()
    seal_once(spool, landing)
    assert bodies(landing) == [b"a", b"c"]


def test_a_tail_that_is_all_torn_is_removed(spool: Path, landing: Path) -> None:
    """A worker that died in its first write leaves nothing to seal."""
    journal_with(spool).close()
    with newest_segment(spool).open("ab") as segment:
        segment.write(b"cio1 torn")
    assert seal_once(spool, landing) == []
    assert segment_numbers(spool) == [("0", 2)]


def stop_before_landing(spool: Path, _: Path) -> None:
    """Stop after the hour was fixed."""
    fix_hour(list_segments(spool / "0")[0], LONG_AGO)


def stop_amid_landing(spool: Path, landing: Path) -> None:
    """Stop after one of two integrations was landed."""
    segment = fix_hour(list_segments(spool / "0")[0], LONG_AGO)
    streams, _ = sealing._read(segment, None)
    land({SCHEMA: streams[SCHEMA]}, segment, landing)


def stop_before_removing(spool: Path, landing: Path) -> None:
    """Stop after everything was landed."""
    segment = fix_hour(list_segments(spool / "0")[0], LONG_AGO)
    streams, _ = sealing._read(segment, None)
    land(streams, segment, landing)


@pytest.mark.parametrize("stop", [stop_before_landing, stop_amid_landing, stop_before_removing])
def test_a_repeat_after_a_crash_gives_the_same_files(
    spool: Path, tmp_path: Path, landing: Path, stop: Callable[[Path, Path], None]
) -> None:
    """Wherever sealing ended, the next one, hours later, leaves the very same files."""
    journal = journal_with(spool, [[b"a", b"b"], [b"c"]])
    store(journal, b"other", schema="other")
    journal.begin_segment()
    journal.close()
    stop(spool, landing)
    reference = tmp_path / "reference"
    stop_before_removing(spool, reference)
    assert set(contents(landing)) <= set(contents(reference))
    seal_once(spool, landing)
    assert contents(landing) == contents(reference)
    assert all("/date=2020-02-29/hour=23/" in path for path in contents(landing))
    assert segment_numbers(spool) == [("0", 2)]
    assert seal_once(spool, landing) == []


def test_killed_sealers_lose_and_double_nothing(spool: Path, landing: Path) -> None:
    """Sealers killed at each of their file operations in turn leave every delivery once."""
    output = subprocess.run(
        [sys.executable, "-m", "tests.killed_sealers", str(spool), str(landing)],
        check=True,
        capture_output=True,
        text=True,
        cwd=PROJECT,
    ).stdout
    report = json.loads(output.splitlines()[-1])
    assert report["killed"] > 20
    assert [body.decode() for body in bodies(landing)] == report[SCHEMA]
    assert len(bodies(landing, "other")) == report["killed"] + 1


def test_what_was_refused_is_not_landed(spool: Path, landing: Path) -> None:
    """A frame that could not be synced does not count once the segment was closed before it."""
    journal = journal_with(spool, [[b"a"]])
    journal.write([receipt(b"refused")])
    journal.begin_segment()
    store(journal, b"b")
    journal.close()
    seal_once(spool, landing)
    assert bodies(landing) == [b"a", b"b"]


def test_an_unwritable_landing_folder_keeps_everything_in_the_spool(
    spool: Path, landing: Path
) -> None:
    """Sealing fails with the reason and loses nothing; when the folder is back, all is landed."""
    for body in (b"a", b"b"):
        journal_with(spool, [[body]]).close()
    landing.write_text("a file is in the way")
    for _ in range(2):
        with pytest.raises(NotADirectoryError):
            seal_once(spool, landing)
    landing.unlink()
    seal_once(spool, landing)
    assert bodies(landing) == [b"a", b"b"]


def test_a_failing_slot_does_not_hold_up_the_others(spool: Path, landing: Path) -> None:
    """The error is raised after everything else was sealed."""
    first, second = journal_with(spool, [[b"a"]]), journal_with(spool, [[b"b"]])
    store(first, b"blocked", schema="blocked")
    first.close()
    second.close()
    landing.mkdir()
    (landing / "integration=blocked").write_text("a file is in the way")
    with pytest.raises(NotADirectoryError):
        seal_once(spool, landing)
    assert b"b" in {row["body"] for row in landed_rows(landing, SCHEMA)}
    assert segment_numbers(spool) == [("0", 1), ("0", 2), ("1", 2)]


def test_a_damaged_segment_is_set_aside(spool: Path, landing: Path) -> None:
    """What is readable is landed; the rest is kept for a person, and the gap can be seen."""
    journal = journal_with(spool, [[b"a"], [b"damaged"], [b"c"]])
    segment = newest_segment(spool)
    journal.begin_segment()
    store(journal, b"d")
    journal.close()
    segment.write_bytes(segment.read_bytes().replace(b"damaged", b"DAMAGED"))
    seal_once(spool, landing)
    assert [(row["offset"], row["body"]) for row in landed_rows(landing, SCHEMA)] == [
        (0, b"a"),
        (3, b"d"),
    ]
    [kept] = (spool / "0").glob("*.damaged")
    assert b"DAMAGED" in kept.read_bytes()


def test_a_segment_without_a_readable_header_is_set_aside(spool: Path, landing: Path) -> None:
    """It does not keep the later ones from being sealed."""
    journal = journal_with(spool, [[b"a"]])
    segment = newest_segment(spool)
    journal.begin_segment()
    store(journal, b"b")
    journal.close()
    segment.write_bytes(b"")
    seal_once(spool, landing)
    assert [row["body"] for row in landed_rows(landing, SCHEMA)] == [b"b"]
    assert len(list((spool / "0").glob("*.damaged"))) == 1


def test_a_damaged_newest_segment_is_left_for_a_person(spool: Path, landing: Path) -> None:
    """Its numbers are unknown: nothing is guessed, and the older segments are sealed."""
    journal = journal_with(spool, [[b"a"]])
    journal.begin_segment()
    journal.close()
    newest_segment(spool).write_bytes(b"damaged")
    seal_once(spool, landing)
    assert bodies(landing) == [b"a"]
    assert newest_segment(spool).read_bytes() == b"damaged"


def test_only_one_process_seals(spool: Path, landing: Path) -> None:
    """While one seals, another does nothing; it goes on when the first one ends."""
    journal_with(spool, [[b"a"]]).close()
    with sealing._only_sealer(spool) as alone:
        assert alone
        assert seal_once(spool, landing) == []
    assert len(seal_once(spool, landing)) == 1


def test_row_groups_bound_the_memory(spool: Path, landing: Path) -> None:
    """A row group holds at most 10,000 deliveries or 32 MiB of bodies, and all are there."""
    many = [b"%d" % at for at in range(25_000)]
    journal_with(spool, [many]).close()
    [file] = seal_once(spool, landing)
    with pq.ParquetFile(file.path(landing)) as parquet:
        sizes = [parquet.metadata.row_group(at).num_rows for at in range(parquet.num_row_groups)]
    assert sizes == [10_000, 10_000, 5_000]
    assert bodies(landing) == many
    mebibyte = bytes(1024 * 1024)
    large = [delivery(mebibyte * size) for size in (20, 12, 1, 40, 1)]
    assert [len(group) for group in row_groups(large)] == [2, 1, 1, 1]
