"""The oracle of the receiver's campaigns must report every wrong landing folder."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from campaigns.landed_oracle import compare
from customerio_pipeline.landing.delivery import LANDED_HEADERS, Delivery
from customerio_pipeline.landing.files import LandingFile
from customerio_pipeline.landing.writing import write_landing_file

SENT = [b"one", b"two", b"three", b"four"]
HOUR = datetime(2026, 1, 2, 3, tzinfo=UTC)


def write(landing: Path, first: int, *bodies: bytes, writer: str = "a", last: int = -1) -> Path:
    """Land bodies from an offset on; `last` is another one than the file's name would say."""
    deliveries = [
        Delivery(writer, first + at, 1, 1, "url_1", "unchecked", (None,) * len(LANDED_HEADERS), it)
        for at, it in enumerate(bodies)
    ]
    end = last if last >= 0 else first + len(bodies) - 1
    name = LandingFile.sealed_at(HOUR, schema="s", writer=writer, first=first, last=end)
    return write_landing_file(landing, name, [deliveries])


def lose_one(landing: Path) -> None:
    """Two of four are not there."""
    write(landing, 0, *SENT[:2])


def lose_one_amid(landing: Path) -> None:
    """One is not there, and its offset neither."""
    write(landing, 0, *SENT[:2])
    write(landing, 3, SENT[3])


def double_one(landing: Path) -> None:
    """One is there twice, under offsets of its own."""
    write(landing, 0, *SENT, SENT[0])


def seal_twice(landing: Path) -> None:
    """The same offsets are in two files."""
    write(landing, 0, *SENT)
    write(landing, 2, *SENT[2:])


def change_one(landing: Path) -> None:
    """A byte is another one."""
    write(landing, 0, *SENT[:3], b"fouR")


def add_one(landing: Path) -> None:
    """One was never sent."""
    write(landing, 0, *SENT, b"five")


def skip_an_offset(landing: Path) -> None:
    """All are there, yet the second file begins one too late."""
    write(landing, 0, *SENT[:2])
    write(landing, 3, *SENT[2:])


def name_it_wrong(landing: Path) -> None:
    """The name promises an offset that is not in the file."""
    write(landing, 0, *SENT, last=4)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lose_one, ["2 acknowledged and lost"]),
        (lose_one_amid, ["the offsets of a have gaps or repeats", "1 acknowledged and lost"]),
        (double_one, ["1 landed twice"]),
        (seal_twice, ["the offsets of a have gaps or repeats", "2 landed twice"]),
        (change_one, ["1 acknowledged and lost", "1 landed and never sent"]),
        (add_one, ["1 landed and never sent"]),
        (skip_an_offset, ["the offsets of a have gaps or repeats"]),
        (
            name_it_wrong,
            ["a-000000000000-000000000004.parquet holds other offsets than it says"],
        ),
    ],
)
def test_what_is_wrong_is_reported(
    tmp_path: Path, spoil: Callable[[Path], None], expected: list[str]
) -> None:
    """Lost, doubled, changed, invented, a gap, a wrong name: each by its own words."""
    spoil(tmp_path)
    assert compare(tmp_path, SENT, SENT) == expected


def test_what_is_right_is_not(tmp_path: Path) -> None:
    """Two writers, and one that was sent but not acknowledged."""
    write(tmp_path, 0, *SENT[:3])
    write(tmp_path, 0, SENT[3], b"perhaps", writer="b")
    assert compare(tmp_path, SENT, [*SENT, b"perhaps"]) == []
    assert compare(tmp_path, SENT, [*SENT, b"perhaps"], integration="s") == []
