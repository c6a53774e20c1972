"""Metrics as Prometheus reads them: text, format 0.0.4."""

from collections.abc import Iterable, Iterator
from http import HTTPStatus
from itertools import accumulate

from receiver.metrics import (
    ACK,
    BATCH,
    CLIENT_GONE,
    CONNECTION_LIMIT,
    PIPELINE_LIMIT,
    REFUSED_AT,
    SYNC,
    Distribution,
    Figures,
    Word,
)
from receiver.refusals import Refusal
from receiver.spool_depth import Depth

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "customerio_receiver_"
_NS = 1e9
_ALWAYS_SHOWN = frozenset(
    (
        *Refusal,
        CLIENT_GONE,
        CONNECTION_LIMIT,
        PIPELINE_LIMIT,
        *(
            status.name.lower()
            for status in (
                HTTPStatus.BAD_REQUEST,
                HTTPStatus.REQUEST_TIMEOUT,
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            )
        ),
    )
)

_VERDICTS = (
    ("valid", Word.SIGNATURES_VALID),
    ("invalid", Word.SIGNATURES_INVALID),
    ("stale", Word.SIGNATURES_STALE),
)

_TOTALS = (
    (Word.ACCEPTED_BYTES, "accepted_bytes_total", "Bytes of the bodies accepted."),
    (Word.STARTS, "worker_starts_total", "Workers started, replaced ones included."),
    (Word.SEALED_FILES, "sealed_files_total", "Landing files written."),
    (Word.SEALED_DELIVERIES, "sealed_deliveries_total", "Deliveries in them."),
    (
        Word.SEALING_FAILURES,
        "sealing_failures_total",
        "Attempts at sealing that failed; it is repeated.",
    ),
    (
        Word.DAMAGED_SEGMENTS,
        "damaged_segments_total",
        "Segments set aside because they could not be read to their end.",
    ),
)


def render(figures: Figures, depth: Depth | None) -> str:
    """Return all metrics.

    Args:
        figures: over all processes.
        depth: None where the spool cannot be read; its metrics are left out then.
    """
    return "\n".join([*_deliveries(figures), *_others(figures, depth), ""])


def _deliveries(figures: Figures) -> Iterator[str]:
    totals = figures.totals
    accepted = sum(totals[ACK.at : ACK.sum_at])
    yield from _metric(
        "accepted_total", "counter", "Deliveries answered with 200.", [("", accepted)]
    )
    yield from _metric(
        "refused_total",
        "counter",
        "Requests that were not accepted and connections closed for others, by reason.",
        (
            (f'{{reason="{reason}"}}', totals[place])
            for reason, place in REFUSED_AT.items()
            if totals[place] or reason in _ALWAYS_SHOWN
        ),
    )
    yield from _metric(
        "signatures_total",
        "counter",
        "Accepted deliveries whose signature was checked, by verdict.",
        ((f'{{verdict="{verdict}"}}', totals[word]) for verdict, word in _VERDICTS),
    )
    yield from _histogram(
        "ack_seconds", "From the head of a request to its 200.", ACK, totals, unit=_NS
    )
    yield from _histogram(
        "sync_seconds", "From a written batch to the end of its sync.", SYNC, totals, unit=_NS
    )
    yield from _histogram("batch_deliveries", "Deliveries that shared a sync.", BATCH, totals)


def _others(figures: Figures, depth: Depth | None) -> Iterator[str]:
    for word, name, meaning in _TOTALS:
        yield from _metric(name, "counter", meaning, [("", figures.totals[word])])
    yield from _gauge("workers", "Workers that live.", len(figures.workers))
    yield from _gauge(
        "waiting_bytes",
        "Bytes of bodies that wait for a sync.",
        sum(words[Word.WAITING_BYTES] for words in figures.workers),
    )
    if depth is not None:
        yield from _gauge("spool_segments", "Segments that wait for sealing.", depth.segments)
        yield from _gauge("spool_bytes", "Bytes that wait for sealing.", depth.bytes)
        yield from _gauge(
            "spool_oldest_seconds",
            "Age of the oldest delivery that waits for sealing.",
            round(depth.oldest_seconds, 3),
        )


def _histogram(
    name: str, meaning: str, place: Distribution, totals: list[int], unit: float = 1
) -> Iterator[str]:
    counts = list(accumulate(totals[place.at : place.sum_at]))
    bounds = [*(f"{bound / unit:g}" for bound in place.bounds), "+Inf"]
    yield from _metric(
        name,
        "histogram",
        meaning,
        (
            *((f'_bucket{{le="{bound}"}}', n) for bound, n in zip(bounds, counts, strict=True)),
            ("_sum", totals[place.sum_at] / unit),
            ("_count", counts[-1]),
        ),
    )


def _gauge(name: str, meaning: str, value: float) -> Iterator[str]:
    yield from _metric(name, "gauge", meaning, [("", value)])


def _metric(
    name: str, kind: str, meaning: str, samples: Iterable[tuple[str, float]]
) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {meaning}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    for rest, value in samples:
        yield f"{_PREFIX}{name}{rest} {value}"
