"""HTTP requests made beforehand, so that sending one costs next to nothing.

Those of a soak have a place for a number in their bodies, so that no two deliveries are alike.
"""

import itertools
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import msgspec

from customerio_pipeline.simulator.events import generate
from customerio_pipeline.simulator.signing import sign

_SEED = 2
_REQUESTS = 1024
_SHORTEST, _LONGEST = 512, 4096

NUMBER_KEY = b'{"number":"'
"""What a numbered body begins with; the number follows."""

NUMBER_DIGITS = 16
_PLACE = b"#" * NUMBER_DIGITS

_HEAD = (
    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Customer.io Web Hooks\r\n"
    "Content-Type: application/json\r\nX-CIO-Timestamp: {timestamp}\r\n"
    "X-CIO-Signature: {signature}\r\nContent-Length: {length}\r\n\r\n"
)
_TIMESTAMP = 1767225600

SIGNING_KEY = "0123456789abcdef" * 2
"""Of every request, but for those whose bodies have a place for a number."""


def write_requests(file: Path, path: str, method: str = "POST") -> None:
    """Write requests to `path`; a webhook's holds a token, which must not be in a process list."""
    file.write_bytes(msgspec.msgpack.encode(_requests(path, method, bodies())))


def write_numbered_requests(file: Path, path: str) -> None:
    """Write requests to `path` whose bodies have a place for a number."""
    numbered = [NUMBER_KEY + _PLACE + b'",' + body[1:] for body in bodies()]
    parts = [request.split(_PLACE) for request in _requests(path, "POST", numbered)]
    file.write_bytes(msgspec.msgpack.encode(parts))


def read_requests(file: Path) -> list[bytes]:
    """Read what `write_requests` wrote."""
    return msgspec.msgpack.decode(file.read_bytes(), type=list[bytes])


def read_numbered_requests(file: Path) -> list[tuple[bytes, bytes]]:
    """Read what `write_numbered_requests` wrote: what stands before and after the number."""
    return msgspec.msgpack.decode(file.read_bytes(), type=list[tuple[bytes, bytes]])


@cache
def bodies() -> list[bytes]:
    """Return simulated bodies of 0.5 to 4 KB."""
    stream = (event.body for event in generate(_SEED))
    fitting = (body for body in stream if _SHORTEST <= len(body) <= _LONGEST)
    return list(itertools.islice(fitting, _REQUESTS))


def _requests(path: str, method: str, contents: Iterable[bytes]) -> list[bytes]:
    return [
        _HEAD.format(
            method=method,
            path=path,
            timestamp=_TIMESTAMP,
            signature=sign(SIGNING_KEY, _TIMESTAMP, body),
            length=len(body),
        ).encode()
        + body
        for body in contents
    ]
