"""The post-load webhook: programs are told what was loaded, as by Stitch (stitch-loading 9.21)."""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from customerio_pipeline.alerting.ways import post_json

TIMEOUT_SECONDS = 30.0
SETTING = "CUSTOMERIO_POST_LOAD_URL"
_USER_AGENT = "customerio-pipeline"
_VERSION = 1


class Loaded(NamedTuple):
    """What was loaded into an integration's tables since it was told the last time."""

    schema: str
    name: str
    rows: int
    """Inserted or updated."""

    rejected: int
    first_batched_at: datetime
    """Of its loads: rows of them have this `_sdc_batched_at` or a later one."""

    received_until: datetime
    """Receipt of the newest event."""

    subtables: Mapping[str, int]
    """Rows of tables of arrays that these loads wrote and that are there, by table."""


def payload(loaded: Loaded) -> bytes:
    """Return Stitch's documented object: `data` and what was loaded of its tables of arrays."""
    return json.dumps(
        {
            "version": _VERSION,
            "minimum_sdc_batched_at": loaded.first_batched_at.isoformat(),
            "integration_name": loaded.name,
            "new_version": False,
            "source_root_table_name": "data",
            "destination_root_table_name": "data",
            "destination_schema_name": loaded.schema,
            "table_version": 0,
            "tables": [
                _table("data", loaded.rows, loaded.rejected, loaded.received_until),
                *(
                    _table(name, rows, 0, loaded.received_until)
                    for name, rows in sorted(loaded.subtables.items())
                ),
            ],
        }
    ).encode()


def _table(name: str, rows: int, rejected: int, until: datetime) -> dict[str, object]:
    return {
        "source_table_name": name,
        "destination_table_name": name,
        "num_rows": rows,
        "num_rows_rejected": rejected,
        "max_time_extracted": until.isoformat(),
        "bookmark_metadata": [],
    }


def post(url: str, key: str | None, loaded: Loaded) -> None:
    """Tell what was loaded.

    With a key the call is signed as Customer.io signs (customerio-webhooks 3): HMAC-SHA256 of
    ``v0:<timestamp>:<body>``, in hexadecimal.

    Raises:
        AlertError: it was not taken.
    """
    body = payload(loaded)
    headers = {"user-agent": _USER_AGENT}
    if key is not None:
        timestamp = str(int(time.time()))
        signed = b"v0:%s:%s" % (timestamp.encode(), body)
        headers["x-signature-timestamp"] = timestamp
        headers["x-signature"] = hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
    post_json(url, body, SETTING, headers=headers, timeout=TIMEOUT_SECONDS)
