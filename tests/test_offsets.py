"""Sets of offsets behave as sets of integers."""

from hypothesis import given
from hypothesis import strategies as st

from customerio_pipeline.landing.offsets import Interval, OffsetSet

INTERVALS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))),
    max_size=8,
)


@given(intervals=INTERVALS, first=st.integers(0, 40), length=st.integers(0, 5))
def test_behaves_as_a_set(intervals: list[tuple[int, int]], first: int, length: int) -> None:
    """Whatever is added in whatever order."""
    offsets = OffsetSet(intervals)
    expected = {offset for low, high in intervals for offset in range(low, high + 1)}
    assert {offset for low, high in offsets for offset in range(low, high + 1)} == expected
    assert len(offsets) == len(expected)
    assert offsets.covers(first, first + length) == expected.issuperset(
        range(first, first + length + 1)
    )
    within = offsets.within(first, first + length)
    assert {o for low, high in within for o in range(low, high + 1)} == expected.intersection(
        range(first, first + length + 1)
    )
    missing = set(range(max(expected, default=-1) + 1)) - expected
    assert {o for low, high in offsets.gaps() for o in range(low, high + 1)} == missing
    assert offsets == OffsetSet(reversed(intervals))


@given(one=INTERVALS, other=INTERVALS)
def test_two_sets(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """What they share, and what only one of them has."""
    left, right = OffsetSet(one), OffsetSet(other)
    numbers = [{o for low, high in found for o in range(low, high + 1)} for found in (left, right)]
    for found, expected in (
        (left.common(right), numbers[0] & numbers[1]),
        (left.without(right), numbers[0] - numbers[1]),
    ):
        assert {o for low, high in found for o in range(low, high + 1)} == expected
        assert found == OffsetSet((o, o) for o in expected)


def test_touching_intervals_become_one() -> None:
    """So a writer without gaps is one interval, however many files it has."""
    assert list(OffsetSet([(0, 4), (10, 12), (5, 9)])) == [Interval(0, 12)]
