"""Logs of the receiver's processes: one JSON object a line on standard error.

No line may hold a request's path, for it ends with the URL's token (design C8); nor the message of
an unexpected exception, which may quote the path.
"""

import logging
import os
import traceback
from collections.abc import MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

_STDERR = 2

_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure_logs(process: str) -> None:
    """Send the logs of this process, and the warnings of libraries, to standard error.

    Args:
        process: stands in each line: ``supervisor``, ``worker`` or ``sealer``.
    """

    # One step: structlog's usual chain takes twice the time, at one line a request.
    def render(_: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        return _encode(
            {"timestamp": datetime.now(UTC), "level": level, "process": process, **event}
        )

    structlog.configure(
        processors=[render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _LineWriter(),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)


def log_unexpected(event: str, error: BaseException) -> None:
    """Log an exception that nobody foresaw."""
    structlog.get_logger().error(event, **_kind_and_place(error))


def _kind_and_place(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__name__,
        "traceback": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def write_lines(lines: Sequence[bytes]) -> None:
    """Write lines with one system call: up to `PIPE_BUF` bytes do not mix with other processes'."""
    try:
        os.write(_STDERR, b"".join(line + b"\n" for line in lines))
    except OSError:
        # Nobody reads the log any more; that must not keep a delivery from being stored.
        return


class _LineWriter:
    def msg(self, line: bytes) -> None:
        write_lines([line])

    debug = info = warning = error = critical = msg


class _ToStructlog(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        details = {} if error is None else _kind_and_place(error)
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, **details
        )
