"""How much is measured."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes of all benchmarks; none changes what is done, only how much of it."""

    seconds: float
    """Length of one measurement of the receiver."""

    rounds: int
    """How often what is compared takes turns; figures are medians of the rounds."""

    events: int
    """Deliveries in the batch that is loaded into an empty and into a full table."""

    table_rows: int
    """Rows of the full table, at least."""

    warm_loads: int
    """Loads of a few events that the median is taken of."""

    single_events: int
    """Events followed one by one from ack to row."""

    longest_pause: float
    """Seconds before each of them: a random time up to this."""


_FULL = Sizes(
    seconds=5,
    rounds=3,
    events=200_000,
    table_rows=1_000_000,
    warm_loads=10,
    single_events=20,
    # Twice the quiet time after which a drain run ends: some events find one, others do not.
    longest_pause=20,
)
_QUICK = Sizes(
    seconds=1,
    rounds=1,
    events=5_000,
    table_rows=25_000,
    warm_loads=3,
    single_events=3,
    longest_pause=3,
)


def choose(*, quick: bool, events: int | None, seconds: float | None) -> Sizes:
    """Return the sizes for what the command line says."""
    sizes = _QUICK if quick else _FULL
    chosen = replace(sizes, events=events or sizes.events, seconds=seconds or sizes.seconds)
    if quick:
        # The share of the batch stays that of the whole benchmark.
        chosen = replace(chosen, table_rows=5 * chosen.events)
    return chosen
