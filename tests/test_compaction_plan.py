"""Which landing files compaction joins."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from customerio_pipeline.landing.compaction import MAX_BYTES, MAX_ROWS, plan_joins
from customerio_pipeline.landing.files import LandingFile
from tests.landed_bodies import SCHEMA
from tests.landed_hours import HOUR


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.integers(1, MAX_ROWS),
            st.one_of(st.none(), st.integers(1, MAX_BYTES)),
            st.booleans(),
        )
    )
)
def test_joined_files_follow_each_other_within_the_limits(
    drawn: list[tuple[str, int, int | None, bool]],
) -> None:
    """And no two that follow each other are left that would fit; damaged ones stay alone."""
    at = {"a": 0, "b": 0}
    sizes: dict[LandingFile, int | None] = {}
    for writer, rows, size, is_after_gap in drawn:
        first = at[writer] + 7 * is_after_gap
        at[writer] = first + rows
        named = LandingFile.sealed_at(
            HOUR, schema=SCHEMA, writer=writer, first=first, last=first + rows - 1
        )
        sizes[named] = size
    groups = plan_joins(list(sizes), sizes.__getitem__)

    grouped = [file for group in groups for file in group]
    assert len(grouped) == len(set(grouped))
    result = [[file] for file in sizes if file not in grouped] + groups
    for group in groups:
        assert all(
            one.writer == other.writer and one.last + 1 == other.first
            for one, other in pairwise(group)
        )
        assert group[-1].last - group[0].first < MAX_ROWS
        assert sum(sizes[file] or MAX_BYTES + 1 for file in group) <= MAX_BYTES
    for one, other in pairwise(sorted(result, key=lambda group: group[0][3:])):
        if one[-1].writer == other[0].writer and one[-1].last + 1 == other[0].first:
            last, following = sizes[one[-1]], sizes[other[0]]
            known = [sizes[file] for file in one]
            assert (
                last is None
                or following is None
                or other[0].last - one[0].first >= MAX_ROWS
                or sum(size or 0 for size in known) + following > MAX_BYTES
            )
