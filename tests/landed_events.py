"""Landing files of simple events, written as the receiver's sealer writes them."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file

WRITER = "aaaaaaaaaa"
PERSONAL = "ada@example.com"
"""Personal data that every event of `event` carries."""


def event(event_id: str, **more: object) -> bytes:
    """Return the body of an event."""
    data = {
        "campaign_id": 7,
        "recipient": PERSONAL,
        "identifiers": {"id": "007", "email": PERSONAL},
    }
    body = {
        "event_id": event_id,
        "object_type": "email",
        "metric": "opened",
        "timestamp": 1_700_000_000,
        "data": data,
        **more,
    }
    return json.dumps(body).encode()


def land(  # noqa: PLR0913  what a file is made of
    landing: Path,
    schema: str,
    bodies: Sequence[bytes],
    *,
    first: int = 0,
    writer: str = WRITER,
    signature: str = "unchecked",
    url_id: str = "url_1",
    ago: timedelta = timedelta(0),
) -> LandingFile:
    """Write one landing file of `bodies`, numbered from `first`, received and sealed `ago`."""
    moment = datetime.now(UTC) - ago
    now = time.time_ns() - ago // timedelta(microseconds=1) * 1000
    deliveries = [
        Delivery(
            writer=writer,
            offset=first + index,
            sequence=now + index,
            received_ns=now,
            url_id=url_id,
            signature=signature,
            headers=(None,) * len(LANDED_HEADERS),
            body=body,
        )
        for index, body in enumerate(bodies)
    ]
    file = LandingFile.sealed_at(
        moment,
        schema=schema,
        writer=writer,
        first=first,
        last=first + len(bodies) - 1,
    )
    write_landing_file(landing, file, [deliveries])
    return file
