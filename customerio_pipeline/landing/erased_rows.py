"""Rows of landing files from which something was erased."""

from collections.abc import Mapping

import pyarrow as pa

from customerio_pipeline.landing.delivery import LANDED_HEADERS
from customerio_pipeline.landing.signatures import ERASED

_HEADERS = [name.replace("-", "_") for name in LANDED_HEADERS]
# Made of the body, or no longer true of it.
_OF_THE_BODY = ("content_encoding", "x_cio_signature", "event_id")


def erase_rows(table: pa.Table, rests: Mapping[int, bytes | None]) -> pa.Table:
    """Return the rows of a landing file with what is left of some bodies.

    A row stays with its writer, offset and receipt, so that nothing is missing. One of which
    nothing is left has the verdict `ERASED` and no headers.

    Args:
        table: rows of a landing file.
        rests: by the number of a row what is left of its body, None for nothing.
    """
    columns = {name: table[name].to_pylist() for name in ("signature", "body", *_HEADERS)}
    columns["event_id"] = table["event_id"].to_pylist()
    for row, rest in rests.items():
        columns["body"][row] = rest or b""
        for name in _OF_THE_BODY if rest else (*_HEADERS, "event_id"):
            columns[name][row] = None
        if not rest:
            columns["signature"][row] = ERASED
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.array(values, field.type))
    return table
