"""Ranges that a merge looks into: every id of the batch lies in one, and loads find every hit."""

import json
import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from customerio_pipeline.warehouse.id_ranges import id_ranges
from tests.landed_bodies import Warehouse

DIGITS = st.text("019AZ", max_size=4)
IDS = st.one_of(
    st.builds(lambda time, rest: f"01E4C4{time**5:08d}{rest}", st.integers(0, 40), DIGITS),
    st.text("0A", max_size=6),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
)


@settings(deadline=None)
@given(ids=st.lists(IDS, min_size=1, max_size=80))
def test_every_id_lies_in_a_range(ids: list[str]) -> None:
    """Compared as the warehouse compares: by bytes."""
    half = len(ids) // 2
    ranges = id_ranges(pa.chunked_array([ids[:half], ids[half:]], pa.string()))
    assert len(ranges) <= 16
    assert ranges == sorted(ranges)
    for event_id in ids if ranges else []:
        assert any(
            first.encode() <= event_id.encode() <= last.encode() for first, last in ranges
        ), event_id


def test_new_ids_and_a_few_old_ones_are_few_narrow_ranges() -> None:
    """What batches are like: the newest, and some repeats."""
    new = [f"01E4C4{number:08d}X" for number in range(5_000_000, 5_001_000)]
    old = [f"01E4C4{number:08d}X" for number in (7, 1_200_000, 1_200_003)]
    ranges = id_ranges(pa.chunked_array([old + new]))
    assert ranges[0] == ("01E4C400000007X", "01E4C400000007X~")
    assert not any(first < "01E4C404999999" and last > "01E4C401200004" for first, last in ranges)


def test_no_ranges_where_they_would_not_spare_anything() -> None:
    """Ids close together, ids all over, ids whose order by bytes is not known to be."""
    for ids in (
        [],
        ["01E4C4X"],
        [f"01E4C4{number:08d}" for number in range(1000)],
        [f"{number * 7919 % 999983:06d}" for number in range(1000)],
        ["01A", "01Z", "02é", "09"],
    ):
        assert id_ranges(pa.chunked_array([ids], pa.string())) == []


@settings(max_examples=20, deadline=None)
@given(
    batches=st.lists(st.lists(IDS.filter(bool), min_size=1, max_size=30), min_size=2, max_size=3)
)
def test_loads_find_every_row_that_is_there(
    batches: list[list[str]],
) -> None:
    """A hit that was missed would be a second row."""
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse(Path(folder))
        for ids in batches:
            warehouse.load_bodies(
                *(json.dumps({"event_id": event_id}).encode() for event_id in ids)
            )
        found = [str(event_id) for (event_id,) in warehouse.rows("SELECT event_id FROM {s}.data")]
        warehouse.target.close()
    assert sorted(found) == sorted({event_id for ids in batches for event_id in ids})
