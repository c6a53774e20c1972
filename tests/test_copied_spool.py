"""A copied spool is sealed and never gone on with: no offset is given twice (design C1)."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.sealing import seal_once
from receiver.slots import slot_folders
from tests.running_receiver import landed_rows
from tests.spool_contents import SCHEMA, journal_with, newest_segment, receipt, store

Steps = Sequence[str]
# What a receiver does between two copies of its spool, and after the last.
STEPS = st.lists(st.sampled_from(["store", "rotate", "seal", "restart"]), max_size=6)


class Receiving:
    """A worker and a sealer on a spool, and what they acknowledged."""

    def __init__(self, home: Path) -> None:
        self.spool, self.landing = home / "spool", home / "landing"
        self.acknowledged: list[bytes] = []
        self._journal = journal_with(self.spool)

    def do(self, steps: Steps, name: str) -> None:
        """Do each step; bodies begin with `name`."""
        for at, step in enumerate(steps):
            if step == "store":
                body = f"{name}-{at}".encode()
                store(self._journal, body)
                self.acknowledged.append(body)
            elif step == "rotate":
                self._journal.begin_segment()
            elif step == "seal":
                seal_once(self.spool, self.landing)
            else:
                self._journal.close()
                self._journal = journal_with(self.spool)

    def end(self) -> None:
        """Seal all there is."""
        self._journal.close()
        while seal_once(self.spool, self.landing):
            pass


@settings(max_examples=60, deadline=None)
@given(before=STEPS, between=STEPS, restored=STEPS)
def test_a_restored_spool_loses_nothing_and_gives_no_offset_twice(
    tmp_path_factory: pytest.TempPathFactory,
    before: Steps,
    between: Steps,
    restored: Steps,
) -> None:
    """The spool is copied, later the landing folder, with the receiver at work all the time.

    Everything acknowledged before the copy of the spool, everything in that of the landing folder,
    and everything acknowledged afterwards is landed in the end; each offset once.
    """
    folder = tmp_path_factory.mktemp("copied")
    original = Receiving(folder / "original")
    original.do(before, "before")
    safe = list(original.acknowledged)
    shutil.copytree(original.spool, folder / "copy" / "spool")
    original.do(between, "between")
    if original.landing.exists():
        shutil.copytree(original.landing, folder / "copy" / "landing")
    safe += [row["body"] for row in landed_rows(folder / "copy" / "landing", SCHEMA)]
    copy = Receiving(folder / "copy")
    copy.do(restored, "restored")
    copy.end()
    rows = landed_rows(copy.landing, SCHEMA)
    bodies = [row["body"] for row in rows]
    assert {*safe, *copy.acknowledged} <= set(bodies)
    assert len(set(bodies)) == len(bodies)
    names = [(row["writer"], row["offset"]) for row in rows]
    assert len(set(names)) == len(names)
    assert [slot.name for slot in copy.spool.iterdir() if slot.is_dir()] == ["0"]


def test_a_copy_that_was_torn_gives_what_is_whole(tmp_path: Path) -> None:
    """The copy was made while a frame was written."""
    journal_with(tmp_path / "a", [[b"whole"], [b"torn"]]).close()
    shutil.copytree(tmp_path / "a", tmp_path / "spool")
    segment = newest_segment(tmp_path / "spool")
    os.truncate(segment, segment.stat().st_size - 1)
    seal_once(tmp_path / "spool", tmp_path / "landing")
    assert [row["body"] for row in landed_rows(tmp_path / "landing", SCHEMA)] == [b"whole"]
    assert slot_folders(tmp_path / "spool") == []


def test_what_was_refused_takes_no_acknowledged_delivery_s_place(tmp_path: Path) -> None:
    """A batch whose sync failed left its frame; its numbers went to the next one."""
    journal = journal_with(tmp_path / "a", [[b"kept"]])
    journal.write([receipt(b"refused")])
    journal.begin_segment()
    store(journal, b"next")
    journal.close()
    shutil.copytree(tmp_path / "a", tmp_path / "spool")
    seal_once(tmp_path / "spool", tmp_path / "landing")
    rows = landed_rows(tmp_path / "landing", SCHEMA)
    assert [row["body"] for row in rows] == [b"kept", b"next"]


def test_a_change_of_permissions_under_a_worker_keeps_its_slot(tmp_path: Path) -> None:
    """The mark is renewed with the next segment, so the sealer goes on."""
    journal = journal_with(tmp_path / "spool", [[b"one"]])
    (tmp_path / "spool" / "0" / "lock").chmod(0o640)
    journal.begin_segment()
    store(journal, b"two")
    seal_once(tmp_path / "spool", tmp_path / "landing")
    [row] = landed_rows(tmp_path / "landing", SCHEMA)
    assert (row["body"], row["offset"]) == (b"one", 0)
    journal.close()
    assert journal_with(tmp_path / "spool").is_empty
    assert len(slot_folders(tmp_path / "spool")) == 1


def test_a_spool_without_its_notes_counts_as_a_copy(tmp_path: Path) -> None:
    """After a disk was rolled back nothing else tells; that of an earlier release has none."""
    journal_with(tmp_path / "spool", [[b"one"]]).close()
    (tmp_path / "spool" / "0" / "identity").unlink()
    journal_with(tmp_path / "spool", [[b"two"]]).close()
    while seal_once(tmp_path / "spool", tmp_path / "landing"):
        pass
    one, two = sorted(landed_rows(tmp_path / "landing", SCHEMA), key=lambda row: row["body"])
    assert (one["body"], one["offset"], two["body"], two["offset"]) == (b"one", 0, b"two", 0)
    assert one["writer"] != two["writer"]
