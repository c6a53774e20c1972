"""One question that the simulator asks all the time."""

from random import Random


def chance(rng: Random, share: float) -> bool:
    """Return True in `share` of the cases, 0 to 1."""
    return rng.random() < share
