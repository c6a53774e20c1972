"""The table: what was measured, what stands beside it, and the goal."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table."""

    what: str
    measured: str
    beside: str = ""
    """What the figure is to be compared with, measured in the same run."""

    goal: str = ""


NOT_MEASURED = "could not be measured"


def markdown(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table."""
    header = Row("", "measured", "beside it", "goal")
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
        for row in (header, Row("---", "---", "---", "---"), *rows)
    )


def heading(text: str) -> Row:
    """Return a line that begins a part of the table."""
    return Row(f"**{text}**", "")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` of them do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def median(values: Sequence[float]) -> str:
    """Return the median with, where there are several values, the least and the greatest."""
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} to {number(max(values))})"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the median of the ratios of what was measured in the same round."""
    return f"{median_ratio(values, others):.2f}x"


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios of what was measured in the same round."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def number(value: float) -> str:
    """Return a number with three digits that count, or all of those before the point."""
    if abs(value) >= 100:  # noqa: PLR2004
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"  # noqa: PLR2004


def bar_and_goal(
    check: Callable[[float, float], str], bar: float, goal: float, measured: float
) -> str:
    """Return what must be reached and what should be, and whether each is."""
    return f"{check(bar, measured)}; {check(goal, measured)}"


def at_least(goal: float, measured: float) -> str:
    """Return a goal, and whether it is reached."""
    return f"≥ {goal:,g}: {'reached' if measured >= goal else 'missed'}"


def below(goal: float, measured: float) -> str:
    """Return a goal, and whether it is reached."""
    return f"< {goal:,g}: {'reached' if measured < goal else 'missed'}"


def at_most(goal: float, measured: float) -> str:
    """Return a goal, and whether it is reached."""
    return f"≤ {goal:,g}: {'reached' if measured <= goal else 'missed'}"
