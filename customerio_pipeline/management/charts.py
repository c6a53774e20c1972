"""Charts as numbers: where each bar, line and label of a drawing goes."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from customerio_pipeline.verifying.volume import Hour

WIDTH, HEIGHT = 640, 190
_LEFT, _TOP, _BOTTOM = 52, 8, 22
_COLOURS = 8
"""Of the style sheet; the last one is for the rest."""

_LABEL_EVERY = 6
_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, and what it says."""

    x: float
    y: float
    width: float
    height: float
    colour: int
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A word beside an axis."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; it is broken where there is none."""

    name: str
    colour: int
    runs: Sequence[str]
    """Points of each unbroken run, as SVG writes them."""

    dots: Sequence[tuple[float, float, str]]
    """Each point, and what it says."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of 24 hours, and the same as words."""

    bars: Sequence[Bar]
    lines: Sequence[Line]
    hours: Sequence[Label]
    scale: Sequence[Label]
    legend: Sequence[tuple[int, str, str]]
    """Colour, name and value."""

    rows: Sequence[tuple[str, str]]
    """What a table says of each hour in which anything came."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Bars of one minute each, without axes."""

    bars: Sequence[Bar]
    total: int
    top: int
    """The count of the busiest minute."""


def sparkline(counts: Sequence[int]) -> Sparkline:
    """Draw counts a minute, 4 units wide each and at most 32 high."""
    top = max([*counts, 1])
    bars = [
        Bar(4 * at, 32 * (1 - count / top), 3, 32 * count / top, 0, "")
        for at, count in enumerate(counts)
        if count
    ]
    return Sparkline(bars, sum(counts), max(counts, default=0))


def volume_chart(hours: Sequence["Hour"]) -> Chart:
    """Draw the events of each hour by metric, the most frequent metrics in colours of their own."""
    totals: Counter[str] = Counter()
    for hour in hours:
        totals.update(hour.events)
    named = [metric for metric, _ in totals.most_common(_COLOURS - 1)]
    colours = {metric: colour for colour, metric in enumerate(named)}
    top = _nice(max((sum(hour.events.values()) for hour in hours), default=0) or 1)
    bars = []
    for at, hour in enumerate(hours):
        parts: Counter[int] = Counter()
        for metric, count in hour.events.items():
            parts[colours.get(metric, _COLOURS - 1)] += count
        y = float(HEIGHT - _BOTTOM)
        for colour, count in sorted(parts.items()):
            height = _plot_height() * count / top
            y -= height
            name = named[colour] if colour < len(named) else "others"
            text = f"{hour.begin:%H}:00 {name}: {count:,}"
            bars.append(
                Bar(
                    x=_x(at, hours) + 2,
                    y=round(y, 2),
                    width=round(_step(hours) - 4, 2),
                    height=round(height, 2),
                    colour=colour,
                    text=text,
                )
            )
    legend = [(colours[metric], metric, f"{totals[metric]:,}") for metric in named]
    others = totals.total() - sum(totals[metric] for metric in named)
    if others:
        legend.append((_COLOURS - 1, "others", f"{others:,}"))
    rows = [
        (
            f"{hour.begin:%d %b, %H}:00",
            ", ".join(f"{name} {count:,}" for name, count in Counter(hour.events).most_common()),
        )
        for hour in hours
        if hour.events
    ]
    scale = _scale(top, lambda value: f"{value:,.0f}")
    return Chart(bars, [], _hour_labels(hours), scale, legend, rows)


def lag_chart(hours: Sequence["Hour"]) -> Chart:
    """Draw the seconds from receipt to the load: half of the events, and 95 of 100."""
    top = _nice(max((hour.lag_p95 or 0 for hour in hours), default=0) or 1)
    lines = [
        _line("median", 1, [hour.lag_p50 for hour in hours], hours, top),
        _line("95 of 100", 3, [hour.lag_p95 for hour in hours], hours, top),
    ]
    rows = [
        (
            f"{hour.begin:%d %b, %H}:00",
            f"median {hour.lag_p50:.1f} s, 95 of 100 within {hour.lag_p95:.1f} s",
        )
        for hour in hours
        if hour.lag_p50 is not None and hour.lag_p95 is not None
    ]
    legend = [(line.colour, line.name, "") for line in lines]
    scale = _scale(top, lambda value: f"{value:g} s")
    return Chart([], lines, _hour_labels(hours), scale, legend, rows)


def _line(
    name: str,
    colour: int,
    values: Sequence[float | None],
    hours: Sequence["Hour"],
    top: float,
) -> Line:
    runs: list[list[str]] = [[]]
    dots = []
    for at, (value, hour) in enumerate(zip(values, hours, strict=True)):
        if value is None:
            runs.append([])
            continue
        x = round(_x(at, hours) + _step(hours) / 2, 2)
        y = round(HEIGHT - _BOTTOM - _plot_height() * value / top, 2)
        runs[-1].append(f"{x},{y}")
        dots.append((x, y, f"{hour.begin:%H}:00 {name}: {value:.1f} s"))
    return Line(name, colour, [" ".join(run) for run in runs if len(run) > 1], dots)


def _plot_height() -> float:
    return HEIGHT - _TOP - _BOTTOM


def _step(hours: Sequence["Hour"]) -> float:
    return (WIDTH - _LEFT) / len(hours)


def _x(at: int, hours: Sequence["Hour"]) -> float:
    return round(_LEFT + at * _step(hours), 2)


def _hour_labels(hours: Sequence["Hour"]) -> Sequence[Label]:
    return [
        Label(_x(at, hours) + _step(hours) / 2, HEIGHT - 6, f"{hour.begin:%H}:00")
        for at, hour in enumerate(hours)
        if hour.begin.hour % _LABEL_EVERY == 0
    ]


def _scale(top: float, text: Callable[[float], str]) -> Sequence[Label]:
    return [
        Label(_LEFT - 6, round(HEIGHT - _BOTTOM - _plot_height() * part, 2), text(top * part))
        for part in (0, 0.5, 1)
    ]


def _nice(value: float) -> float:
    """Return a round number that is not below `value`."""
    magnitude: float = 1
    while magnitude * 10 <= value:
        magnitude *= 10
    while magnitude > value:
        magnitude /= 10
    return next(step * magnitude for step in _STEPS if step * magnitude >= value)
