"""HTTP requests made beforehand, so that sending one costs next to nothing."""

import itertools
from functools import cache
from pathlib import Path

import msgspec

from customerio_pipeline.simulator.events import generate

_SEED = 2
_REQUESTS = 1024
_SHORTEST, _LONGEST = 512, 4096

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Customer.io Web Hooks\r\n"
    "Content-Type: application/json\r\nX-CIO-Timestamp: 1767225600\r\n"
    "X-CIO-Signature: {signature}\r\nContent-Length: {length}\r\n\r\n"
)
_SIGNATURE = "0123456789abcdef" * 4


def write_requests(file: Path, path: str) -> None:
    """Write requests to the webhook `path`, whose token must not be in a process list."""
    requests = [
        _HEAD.format(path=path, signature=_SIGNATURE, length=len(body)).encode() + body
        for body in bodies()
    ]
    file.write_bytes(msgspec.msgpack.encode(requests))


def read_requests(file: Path) -> list[bytes]:
    """Read what `write_requests` wrote."""
    return msgspec.msgpack.decode(file.read_bytes(), type=list[bytes])


@cache
def bodies() -> list[bytes]:
    """Return simulated bodies of 0.5 to 4 KB."""
    stream = (event.body for event in generate(_SEED))
    fitting = (body for body in stream if _SHORTEST <= len(body) <= _LONGEST)
    return list(itertools.islice(fitting, _REQUESTS))
