"""How much is measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.event_pool import POOL_EVENTS
from benchmarks.warehouses import DUCKDB, POSTGRESQL


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Sizes of all benchmarks; none changes what is done, only how much of it."""

    seconds: float
    """Length of one measurement of the receiver."""

    rounds: int
    """How often what is compared takes turns; figures are medians of the rounds."""

    receiver_rounds: int
    """The same for the receiver, whose figures vary more."""

    connections: tuple[int, ...]
    """Connections that the receiver is measured with."""

    steady_rate: int
    """Requests a second while sealing goes on beside."""

    events: int
    """Deliveries in the batch that is loaded into an empty and into a full table."""

    compared_events: int
    """Deliveries that are loaded beside the peers, which load fewer where they are slow."""

    pool_events: int
    """Bodies that are simulated; more are made by giving them other ids."""

    table_rows: int
    """Rows of the full table, at least."""

    warm_loads: int
    """Loads of a few events that the median is taken of."""

    growth_rows: Mapping[str, int]
    """Rows of the table that is compared with a small one, by kind of warehouse."""

    growth_small_rows: int
    growth_batch: int
    """Deliveries of a batch that is merged into both."""

    growth_loads: int
    """Batches that the median is taken of."""

    catch_up_events: int
    """Deliveries that wait at once."""

    single_events: int
    """Events followed one by one from ack to row."""

    freshness_minutes: float
    """In which they come."""


_FULL = Sizes(
    seconds=5,
    rounds=3,
    receiver_rounds=5,
    connections=(1, 16, 64),
    steady_rate=1_000,
    events=200_000,
    compared_events=1_000_000,
    pool_events=POOL_EVENTS,
    table_rows=1_000_000,
    warm_loads=10,
    growth_rows={DUCKDB: 10_000_000, POSTGRESQL: 1_000_000},
    growth_small_rows=100_000,
    growth_batch=100_000,
    growth_loads=5,
    catch_up_events=10_000_000,
    single_events=200,
    freshness_minutes=10,
)
_QUICK = Sizes(
    seconds=1,
    rounds=1,
    receiver_rounds=1,
    connections=(1, 64),
    steady_rate=200,
    events=5_000,
    compared_events=5_000,
    pool_events=2_000,
    table_rows=25_000,
    warm_loads=3,
    growth_rows={DUCKDB: 10_000, POSTGRESQL: 10_000},
    growth_small_rows=2_000,
    growth_batch=1_000,
    growth_loads=1,
    catch_up_events=20_000,
    single_events=3,
    freshness_minutes=0.1,
)


def choose(*, quick: bool, events: int | None, seconds: float | None) -> Sizes:
    """Return the sizes for what the command line says."""
    sizes = _QUICK if quick else _FULL
    chosen = replace(
        sizes,
        events=events or sizes.events,
        compared_events=events or sizes.compared_events,
        catch_up_events=events or sizes.catch_up_events,
        seconds=seconds or sizes.seconds,
    )
    if quick:
        # The share of the batch stays that of the whole benchmark.
        chosen = replace(chosen, table_rows=5 * chosen.events)
    return chosen
