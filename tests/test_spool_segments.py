"""Segments and their recovery: what was synced is found again, what was torn is not."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.journal import Journal
from receiver.segments import DamagedSegmentError, SegmentReader
from receiver.slots import list_segments
from tests.spool_contents import (
    SCHEMA,
    deliveries_of,
    journal_with,
    newest_segment,
    receipt,
    store,
)

batches_of_bodies = st.lists(
    st.lists(st.binary(max_size=64), min_size=1, max_size=4), min_size=1, max_size=6
)


def _same_start(one: bytes, other: bytes) -> int:
    """Return how many bytes two files have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((at for at, (left, right) in enumerate(pairs) if left != right), shorter)


@settings(deadline=None, max_examples=50)
@given(batches=batches_of_bodies, data=st.data())
def test_a_torn_tail_is_cut_at_the_last_whole_frame(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    """Cut and garbled anywhere, a segment gives every batch before the damage, and no other."""
    with TemporaryDirectory() as folder:
        spool = Path(folder)
        journal = journal_with(spool)
        ends = [journal.length]
        for bodies in batches:
            store(journal, *bodies)
            ends.append(journal.length)
        journal.close()
        segment = newest_segment(spool)
        whole = segment.read_bytes()
        cut = data.draw(st.integers(ends[0], len(whole)), label="cut at")
        garbage = data.draw(st.binary(max_size=64) | st.integers(0, 64).map(bytes), label="garbage")
        segment.write_bytes(whole[:cut] + garbage)

        # Garbage may happen to be what was cut off.
        kept = _same_start(whole, segment.read_bytes())
        expected = [
            body
            for bodies, end in zip(batches, ends[1:], strict=True)
            if end <= kept
            for body in bodies
        ]
        assert [delivery.body for delivery in deliveries_of(segment)] == expected

        recovered = Journal(spool)
        recovered.begin_segment()
        store(recovered, b"next")
        [following] = deliveries_of(newest_segment(spool))
        assert following.offset == len(expected)
        with SegmentReader(newest_segment(spool)) as reader:
            assert reader.header.predecessor_length == ends[sum(end <= kept for end in ends) - 1]
        recovered.close()


@settings(deadline=None, max_examples=50)
@given(batches=batches_of_bodies, data=st.data())
def test_one_flipped_bit_ends_a_segment(batches: list[list[bytes]], data: st.DataObject) -> None:
    """Damage in the middle is noticed wherever it lies; what was before it is still read."""
    with TemporaryDirectory() as folder:
        spool = Path(folder)
        journal = journal_with(spool)
        ends = [journal.length]
        for bodies in batches:
            store(journal, *bodies)
            ends.append(journal.length)
        journal.close()
        segment = newest_segment(spool)
        content = bytearray(segment.read_bytes())
        at = data.draw(st.integers(ends[0], len(content) - 1), label="byte")
        content[at] ^= 1 << data.draw(st.integers(0, 7), label="bit")
        segment.write_bytes(content)
        expected = [
            body
            for bodies, end in zip(batches, ends[1:], strict=True)
            if end <= at
            for body in bodies
        ]
        assert [delivery.body for delivery in deliveries_of(segment)] == expected


def test_numbers_go_on_over_segments_and_processes(tmp_path: Path) -> None:
    """Offsets have no gap and the sequence rises, though the clock stands still (design C1)."""
    found = []
    for _ in range(3):
        journal = journal_with(tmp_path, [[b"a", b"b"], [b"c"]])
        found += deliveries_of(newest_segment(tmp_path))
        journal.begin_segment()
        store(journal, b"d")
        found += deliveries_of(newest_segment(tmp_path))
        journal.close()
    assert [delivery.offset for delivery in found] == list(range(12))
    assert len({delivery.writer for delivery in found}) == 1
    start = receipt(b"").received_ns
    assert [delivery.sequence for delivery in found] == list(range(start, start + 12))


def test_each_integration_has_numbers_of_its_own(tmp_path: Path) -> None:
    """A batch may mix integrations; each has its own writer and offsets, one sequence rises."""
    journal = journal_with(tmp_path)
    journal.write([receipt(b"1", "one"), receipt(b"2", "two"), receipt(b"3", "one")])
    journal.sync()
    journal.close()
    one = deliveries_of(newest_segment(tmp_path), "one")
    two = deliveries_of(newest_segment(tmp_path), "two")
    assert [(delivery.offset, delivery.body) for delivery in one] == [(0, b"1"), (1, b"3")]
    assert [(delivery.offset, delivery.body) for delivery in two] == [(0, b"2")]
    assert one[0].writer == one[1].writer != two[0].writer
    assert one[0].sequence < two[0].sequence < one[1].sequence


def test_a_batch_that_was_not_synced_gives_its_numbers_back(tmp_path: Path) -> None:
    """What was refused after a failed sync is not counted, though its frame is whole."""
    journal = journal_with(tmp_path, [[b"kept"]])
    journal.write([receipt(b"refused")])
    journal.begin_segment()
    store(journal, b"next")
    refused_in, next_in = list_segments(tmp_path / "0")
    assert [delivery.body for delivery in deliveries_of(refused_in.path)] == [b"kept", b"refused"]
    with SegmentReader(next_in.path) as successor, SegmentReader(refused_in.path) as reader:
        counted = list(reader.batches(successor.header.predecessor_length))
    assert [delivery.body for batch in counted for delivery in batch[SCHEMA]] == [b"kept"]
    assert [delivery.offset for delivery in deliveries_of(next_in.path)] == [1]
    journal.close()


def test_a_batch_that_was_refused_last_may_be_kept_by_recovery(tmp_path: Path) -> None:
    """A worker that dies before it could close the segment leaves the frame: it then counts."""
    journal = journal_with(tmp_path, [[b"kept"]])
    journal.write([receipt(b"refused")])
    journal.close()
    recovered = journal_with(tmp_path, [[b"next"]])
    assert [delivery.offset for delivery in deliveries_of(newest_segment(tmp_path))] == [2]
    recovered.close()


def test_two_workers_take_two_slots(tmp_path: Path) -> None:
    """A slot belongs to one process; a slot let go is taken again and continued."""
    first, second = journal_with(tmp_path, [[b"a"]]), journal_with(tmp_path, [[b"b"]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    writers = {deliveries_of(list_segments(tmp_path / slot)[-1].path)[0].writer for slot in "01"}
    assert len(writers) == 2
    first.close()
    third = journal_with(tmp_path, [[b"c"]])
    [delivery] = deliveries_of(newest_segment(tmp_path))
    assert (delivery.offset, delivery.body) == (1, b"c")
    second.close()
    third.close()


def test_a_slot_with_an_unreadable_header_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its numbers are unknown, so the worker says so and takes another slot."""
    journal_with(tmp_path, [[b"a"]]).close()
    damaged = newest_segment(tmp_path)
    damaged.write_bytes(b"\x00" * 100)
    with pytest.raises(DamagedSegmentError, match=r"000000000001\.segment has no readable header"):
        SegmentReader(damaged)
    journal = journal_with(tmp_path, [[b"b"]])
    assert damaged.read_bytes() == b"\x00" * 100
    assert [slot.number for slot in list_segments(tmp_path / "1")] == [1]
    assert "slot_damaged" in capfd.readouterr().out
    journal.close()


def test_a_removed_slot_is_replaced(tmp_path: Path) -> None:
    """When somebody removes the slot's folder, the journal fails once and begins anew."""
    journal = journal_with(tmp_path, [[b"a"]])
    for path in (tmp_path / "0").iterdir():
        path.unlink()
    (tmp_path / "0").rmdir()
    with pytest.raises(FileNotFoundError):
        journal.begin_segment()
    assert not journal.is_open
    journal.begin_segment()
    store(journal, b"b")
    assert [delivery.offset for delivery in deliveries_of(newest_segment(tmp_path))] == [0]
    journal.close()


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    """A segment that was being created when its worker died never counts."""
    journal_with(tmp_path).close()
    leftover = tmp_path / "0" / ".000000000002.segment.tmp"
    leftover.write_bytes(b"half a header")
    journal_with(tmp_path).close()
    assert not leftover.exists()
