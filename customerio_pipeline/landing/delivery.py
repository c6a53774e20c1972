"""One accepted delivery, as the spool keeps it and a landing file holds it."""

import msgspec

# Request headers kept with each delivery, in the order of `Delivery.headers`; a header `a-b` is
# the landing column `a_b`. The signature and its timestamp allow a later verification.
LANDED_HEADERS = (
    "content-type",
    "content-encoding",
    "user-agent",
    "x-cio-timestamp",
    "x-cio-signature",
)


class Delivery(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One accepted request. ``(writer, offset)`` names it for ever (design C1)."""

    writer: str
    """Numbering domain: one per receiver worker and integration."""

    offset: int
    """0, 1, 2, … without gaps within the writer."""

    sequence: int
    """``_sdc_sequence``: ns since the epoch at receipt, strictly rising within the writer."""

    received_ns: int
    """Wall clock at receipt, ns since the epoch."""

    url_id: str
    """Id of the webhook URL that was called; never its token."""

    signature: str
    """Verdict on the signature (`customerio_pipeline.landing.signatures`)."""

    headers: tuple[str | None, ...]
    """Values of `LANDED_HEADERS`, None where the request had none."""

    body: bytes
    """The request body, byte for byte."""
