"""The line that each request leaves in the log (`CUSTOMERIO_ACCESS_LOG`).

At thousands of requests a second a system call for each line, and a logger's chain before it, would
take as long as everything else. So the lines of one turn of the event loop are written together, in
pieces that a pipe takes whole: lines of several processes do not mix.
"""

import asyncio
import select
from datetime import UTC, datetime

import msgspec

from receiver.logs import write_lines

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct, kw_only=True, gc=False):
    """What structlog would write, in its order."""

    timestamp: datetime
    level: str = "info"
    process: str = "worker"
    url_id: str | None
    status: int | None
    bytes: int
    ms: float
    reason: str | msgspec.UnsetType = msgspec.UNSET
    client: str | msgspec.UnsetType = msgspec.UNSET
    event: str = "request"


class RequestLog:
    """Takes lines, and writes them when the event loop turns."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def note(  # noqa: PLR0913  the fields of a line
        self,
        *,
        url_id: str | None,
        status: int | None,
        size: int,
        took_ns: int,
        reason: str | None,
        client: str | None,
    ) -> None:
        """Write a line about a request soon.

        Args:
            url_id: of the URL that it came to, None when there is no such one.
            status: of the answer, None when the client was gone before.
            size: of the body that was read, bytes.
            took_ns: from its beginning to its answer, ns.
            reason: why it was not stored; None for what the status says.
            client: the address that may not send.
        """
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.write)
        self._lines.append(
            _encode(
                _Line(
                    timestamp=datetime.now(UTC),
                    url_id=url_id,
                    status=status,
                    bytes=size,
                    ms=round(took_ns / 1e6, 2),
                    reason=msgspec.UNSET if reason is None else reason,
                    client=msgspec.UNSET if client is None else client,
                )
            )
        )

    def write(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        piece: list[bytes] = []
        size = 0
        for line in lines:
            if size + len(line) + 1 > select.PIPE_BUF:
                write_lines(piece)
                piece, size = [], 0
            piece.append(line)
            size += len(line) + 1
        write_lines(piece)
