"""Sets of offsets as intervals: what was landed, what was loaded, and what lies between."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Interval(NamedTuple):
    """Offsets `first` to `last`, both inclusive."""

    first: int
    last: int


class OffsetSet:
    """A set of offsets of one writer, kept as sorted intervals that neither touch nor overlap."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in intervals:
            self.add(first, last)

    def __iter__(self) -> Iterator[Interval]:
        """Yield the intervals in rising order."""
        return map(Interval, self._firsts, self._lasts)

    def __eq__(self, other: object) -> bool:
        """Two sets are equal when they hold the same offsets."""
        if not isinstance(other, OffsetSet):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __len__(self) -> int:
        """Return the number of offsets."""
        return sum(last - first + 1 for first, last in self)

    def __repr__(self) -> str:
        """Show the intervals."""
        return f"OffsetSet({[tuple(interval) for interval in self]})"

    def add(self, first: int, last: int) -> None:
        """Add the offsets `first` to `last`."""
        if last < first:
            raise ValueError(f"offsets {first} to {last} run backwards")
        # Intervals that touch or overlap the new one are [low, high).
        low = bisect_right(self._lasts, first - 2)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def covers(self, first: int, last: int) -> bool:
        """Tell whether every offset from `first` to `last` is in the set."""
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and self._lasts[at] >= last

    def within(self, first: int, last: int) -> "OffsetSet":
        """Return those of the offsets that are between `first` and `last`, both inclusive."""
        low = bisect_right(self._lasts, first - 1)
        high = bisect_right(self._firsts, last)
        return OffsetSet(
            (max(first, self._firsts[at]), min(last, self._lasts[at])) for at in range(low, high)
        )

    def common(self, other: "OffsetSet") -> "OffsetSet":
        """Return the offsets that are in both."""
        return OffsetSet(interval for first, last in other for interval in self.within(first, last))

    def without(self, other: "OffsetSet") -> "OffsetSet":
        """Return the offsets that are not in `other`."""
        left = OffsetSet()
        for first, last in self:
            following = first
            for gone_first, gone_last in other.within(first, last):
                if gone_first > following:
                    left.add(following, gone_first - 1)
                following = gone_last + 1
            if following <= last:
                left.add(following, last)
        return left

    def gaps(self) -> list[Interval]:
        """Return the offsets missing between 0 and the greatest in the set."""
        missing = []
        expected = 0
        for first, last in self:
            if first > expected:
                missing.append(Interval(expected, first - 1))
            expected = last + 1
        return missing
