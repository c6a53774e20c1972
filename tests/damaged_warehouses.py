"""Warehouses that are damaged as disks and crashes damage them, and some that only look so."""

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb

from tests.landed_bodies import SCHEMA, Warehouse

_HEADER = 4096
_BLOCKS_AT = 3 * _HEADER
_BLOCK = 256 * 1024

DIE_AFTER_COMMIT = """
import os, signal, sys
from pathlib import Path
from customerio_pipeline.loading.load import Loader
from customerio_pipeline.warehouse import duckdb_merge
from customerio_pipeline.warehouse.duckdb_target import DuckDBTarget
merge = duckdb_merge.merge
def merge_and_die(*arguments):
    merge(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
duckdb_merge.merge = merge_and_die
Loader(sys.argv[1], Path(sys.argv[2]), DuckDBTarget(Path(sys.argv[3]), wait_seconds=5)).load_next()
"""
"""A load that is killed between its commit and the checkpoint: it leaves a write-ahead log."""


def log_of(file: Path) -> Path:
    """Return the write-ahead log of a warehouse."""
    return file.with_name(file.name + ".wal")


def fill(warehouse: Warehouse) -> None:
    """Load some events, then some more with a load that is killed after its commit."""
    warehouse.load_bodies(
        *(b'{"event_id":"a%d","x":"%0512d"}' % (n, n**9) for n in range(3000)), b"no JSON"
    )
    warehouse.land(*(b'{"event_id":"b%d","y":%d}' % (n, n) for n in range(500)))
    arguments = [SCHEMA, str(warehouse.landing), str(warehouse.file)]
    subprocess.run([sys.executable, "-c", DIE_AFTER_COMMIT, *arguments], check=False)
    assert log_of(warehouse.file).stat().st_size > 10_000


def _garble(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(7).randbytes(length))


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def _garble_database(start: int, length: int) -> Callable[[Path], None]:
    return lambda file: _garble(file, start, length)


def _garble_log(start: int, length: int) -> Callable[[Path], None]:
    return lambda file: _garble(log_of(file), start, length)


def _garble_from(start: int) -> Callable[[Path], None]:
    return lambda file: _garble(file, start, file.stat().st_size - start)


def _cut_to(share: float) -> Callable[[Path], None]:
    return lambda file: _cut(file, int(file.stat().st_size * share))


def _put_other_database(file: Path) -> None:
    """Leave the log beside a database that it does not belong to."""
    other = file.with_name("other")
    duckdb.connect(other).close()
    other.rename(file)


def _point_beyond_the_end(file: Path) -> None:
    """Change a pointer and the checksum with it: what DuckDB then reports is an internal error."""
    for header in (_HEADER, 2 * _HEADER):
        _set_number(file, header, 16, 0x5000)


def _set_number(file: Path, header: int, offset: int, value: int) -> None:
    content = bytearray(file.read_bytes())
    struct.pack_into("<Q", content, header + offset, value)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", content[header + 8 : header + _HEADER]):
        checksum ^= word * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    struct.pack_into("<Q", content, header, checksum)
    file.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no byte is left": lambda file: _cut(file, 0),
    "cut within the header": lambda file: _cut(file, 100),
    "cut after the header": lambda file: _cut(file, _HEADER),
    "half of it is left": _cut_to(0.5),
    "another text": lambda file: file.write_bytes(b"something else entirely" * 1000),
    "zeros": lambda file: file.write_bytes(bytes(600_000)),
    "garbage instead of the main header": _garble_database(0, _HEADER),
    "garbage in the main header": _garble_database(20, 40),
    "garbage in the database headers": _garble_database(_HEADER, 2 * _HEADER),
    "garbage in every block": _garble_from(_BLOCKS_AT),
    "a pointer beyond the end": _point_beyond_the_end,
    "garbage at the log's start": _garble_log(16, 16),
    "garbage in the log": _garble_log(500, 4000),
    "the log of another database": _put_other_database,
}
"""What each does to a warehouse of `fill`; a load meets all of it."""


def garble_blocks_of_values(file: Path) -> None:
    """Damage what a load does not read: only somebody's query meets it."""
    for block in range((file.stat().st_size - _BLOCKS_AT) // _BLOCK - 2):
        _garble(file, _BLOCKS_AT + block * _BLOCK + 1000, 2000)


def make_newer(file: Path) -> None:
    """Make it a file of a later version of DuckDB."""
    _set_number(file, 0, 12, 4000)
