"""Few ranges that hold all event_ids of a batch, for looking into few parts of a table.

Customer.io's event ids begin with the time they were made at (customerio-webhooks 1.3), so a batch
is mostly the newest ids and some from before. DuckDB keeps the least and the greatest value of each
122,880 rows: with the batch's ids as a few ranges it skips all rows that cannot be meant.
"""

import pyarrow as pa
import pyarrow.compute as pc

_MOST_RANGES = 16
"""Each is compared with every row that is not skipped."""

_GREATEST_SHARE = 0.25
"""Of the span from the first to the last id: ranges that cover more skip too little."""

_ORDERED = "^[0-9A-Z]*$"
"""Ids whose distance is known: digits of base 36, in the order of their bytes."""

_BASE = 36
_DIGITS = 12
"""That many fit into 63 bits."""

_AFTER_ANY = "~"
"""Greater than whatever may follow the beginning of an id."""


def id_ranges(event_ids: pa.ChunkedArray) -> list[tuple[str, str]]:
    """Return ranges, both ends included, that hold every id by its bytes, in ascending order.

    There are none where ranges would not spare much: ids close together (least and greatest say
    it all), ids all over the span, ids of other letters than Customer.io's.
    """
    if not len(event_ids) or not pc.all(pc.match_substring_regex(event_ids, _ORDERED)).as_py():
        return []
    bounds = pc.min_max(event_ids).as_py()
    shared = _shared_length(bounds["min"], bounds["max"])
    starts = pc.unique(pc.utf8_slice_codeunits(event_ids, 0, shared + _DIGITS))
    starts = pc.take(starts, pc.sort_indices(starts)).to_pylist()
    places = [int(start[shared:].ljust(_DIGITS, "0"), _BASE) for start in starts]
    gaps = pc.pairwise_diff(pa.array(places, pa.int64()))[1:]
    breaks = pc.select_k_unstable(gaps, min(_MOST_RANGES - 1, len(gaps)), [("", "descending")])
    ends = [*sorted(breaks.to_pylist()), len(starts) - 1]
    begins = [0, *(end + 1 for end in ends[:-1])]
    covered = sum(places[end] - places[begin] for begin, end in zip(begins, ends, strict=True))
    if covered >= (places[-1] - places[0]) * _GREATEST_SHARE:
        return []
    return [
        (starts[begin], starts[end] + _AFTER_ANY) for begin, end in zip(begins, ends, strict=True)
    ]


def _shared_length(least: str, greatest: str) -> int:
    """Return how many characters all ids between both begin with alike."""
    for place, (one, other) in enumerate(zip(least, greatest, strict=False)):
        if one != other:
            return place
    return len(least)
