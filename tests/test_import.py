"""``import``: events of files end in the table as if they had been delivered, once."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from customerio_pipeline.cli import cli
from customerio_pipeline.errors import ImportFileError
from customerio_pipeline.importing import landing
from tests.importing import Importing
from tests.installation import Installation, installed
from tests.landed_bodies import RECEIVED_NS, SCHEMA, Warehouse

SECOND_NS = 1_000_000_000
EVENT = b'{"event_id":"e1","timestamp":1700000000,"metric":"sent"}'

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    ),
    max_leaves=4,
)
_event = st.builds(
    lambda event_id, timestamp, data: json.dumps(
        {"event_id": event_id, "timestamp": timestamp, "data": data}
    ).encode(),
    st.sampled_from(["e1", "e2", "e3", "e4"]),
    st.integers(0, 1_700_000_000) | st.none() | st.just(2**62) | st.just("soon"),
    _values,
)
_malformed = st.sampled_from([b"no JSON", b"7", b"\xff\xfe", b"{}", b'[{"event_id":"e5"},1]'])
_bodies = st.lists(_event | _malformed, max_size=8)


def as_lines(bodies: Sequence[bytes]) -> bytes:
    """Return JSON lines, with blank ones and ends of lines of both kinds."""
    return b"\r\n".join(bodies) + b"\n\n" * bool(bodies)


def as_zstd(bodies: Sequence[bytes]) -> bytes:
    """Return them in zstd."""
    compressed: bytes = pa.compress(as_lines(bodies), "zstd", asbytes=True)
    return compressed


def as_column(name: str) -> Callable[[Sequence[bytes]], bytes]:
    """Return a function that gives a Parquet file with the bodies in a column."""

    def parquet(bodies: Sequence[bytes]) -> bytes:
        sink = pa.BufferOutputStream()
        table = pa.table({"n": range(len(bodies)), name: pa.array(bodies, pa.binary())})
        pq.write_table(table, sink)
        content: bytes = sink.getvalue().to_pybytes()
        return content

    return parquet


KINDS = {
    "lines": as_lines,
    "gzip": lambda bodies: gzip.compress(as_lines(bodies)),
    "zstd": as_zstd,
    "column": as_column("payload"),
}


@pytest.fixture
def installation(
    tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Importing]:
    """Give one for each warehouse."""
    with installed(tmp_path, warehouse_url, monkeypatch) as (warehouse, registry):
        yield Importing(Installation(warehouse, registry), tmp_path)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importing]:
    """Give one whose warehouse does not matter."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        yield Importing(Installation(*parts), tmp_path)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an import write landing files of three records."""
    monkeypatch.setattr(landing, "FILE_RECORDS", 3)


@settings(
    deadline=None,
    phases=[Phase.generate],  # each example is an installation: shrinking takes minutes
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@pytest.mark.usefixtures("small_files")
@given(bodies=_bodies, kind=st.sampled_from(sorted(KINDS)))
def test_an_import_equals_deliveries(
    bodies: list[bytes], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file: what it holds is landed byte for byte, and ends where a delivery does."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with installed(home, f"duckdb:///{home / 'w.duckdb'}", monkeypatch) as parts:
            importing = Importing(Installation(*parts), home)
            file = importing.write(KINDS[kind](bodies))
            [found] = importing.imported(file)
            assert (found["records"], found["landed"]) == (len(bodies), len(bodies))
            landed = importing.landed()
            assert [row["body"] for row in landed] == bodies
            assert [row["offset"] for row in landed] == list(range(len(bodies)))
            # Again, as another kind of file: nothing comes of it.
            for again in KINDS.values():
                [found] = importing.imported(importing.write(again(bodies)))
                assert (found["records"], found["landed"]) == (len(bodies), 0)
            importing.warehouse.load()
            assert json.loads(importing.run("verify", "--json").output)[0]["gaps"] == []

            direct = Importing(Installation(Warehouse(home / "direct"), importing.registry), home)
            if not bodies:
                return
            direct.warehouse.land(*bodies, sequences=[row["_sdc_sequence"] for row in landed])
            direct.warehouse.load()
            direct.warehouse.change(
                "UPDATE {s}.data SET _sdc_received_at = make_timestamptz(_sdc_sequence // 1000)"
            )
            assert importing.rows() == direct.rows()
            assert sorted(importing.warehouse.rejected()) == sorted(direct.warehouse.rejected())
            direct.warehouse.target.close()


@pytest.mark.parametrize("landed_first", ["import", "deliveries"])
def test_what_was_delivered_wins(installation: Importing, landed_first: str) -> None:
    """An import of any moment replaces nothing that a webhook brought; what is missing comes."""
    file = installation.write(EVENT + b"\n" + EVENT.replace(b"e1", b"e2"))
    if landed_first == "import":
        installation.imported(file)
        installation.warehouse.load()
    installation.warehouse.load_bodies(EVENT.replace(b"sent", b"opened"))
    if landed_first == "deliveries":
        installation.imported(file)
        installation.warehouse.load()

    events = installation.warehouse.events()
    assert {name: row["metric"] for name, row in events.items()} == {"e1": "opened", "e2": "sent"}


def test_records_count_as_received_when_they_happened(local: Importing) -> None:
    """Without a believable time of its own a record has that of the one before it."""
    local.imported(
        local.write(
            b"no JSON\n"
            + EVENT
            + b'\n{"event_id":"e2"}\n{"event_id":"e3","timestamp":99999999999}'
            + b'\n[{"event_id":"e4","timestamp":9},{"event_id":"e5","timestamp":5}]'
        )
    )
    landed = local.landed()
    assert [row["_sdc_sequence"] // SECOND_NS for row in landed] == [
        0,
        1_700_000_000,
        1_700_000_000,
        1_700_000_000,
        5,
    ]
    assert landed[1]["received_at"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert {row["url_id"] for row in landed} == {"import"}
    assert {row["signature"] for row in landed} == {"unchecked"}


def test_the_receipt_can_be_said(local: Importing) -> None:
    """For all records; never in the future, where nothing could replace them."""
    file = local.write(EVENT)
    local.imported(file, "--received-at", "2026-01-02T03:04:05")
    [row] = local.landed()
    assert row["received_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert row["_sdc_sequence"] == int(row["received_at"].timestamp()) * SECOND_NS
    for wrong in ("2999-01-01", "yesterday"):
        assert local.run("import", SCHEMA, file, "--received-at", wrong).exit_code == 2


def test_landing_files_keep_what_they_say(installation: Importing, tmp_path: Path) -> None:
    """Of another installation, say: order, receipt, headers, and what no key signed stays held."""
    other = Warehouse(tmp_path / "other")
    file = other.land(EVENT, b'{"event_id":"held"}', signatures=["valid:key_1", "invalid"])
    found = installation.imported(str(file.path(other.landing)))
    assert (found[0]["records"], found[0]["landed"]) == (2, 2)
    installation.warehouse.load()

    assert list(installation.warehouse.events()) == ["e1"]
    assert installation.landed()[0]["_sdc_sequence"] == RECEIVED_NS
    [account] = json.loads(installation.run("verify", "--json").output)
    assert (account["landed"], account["loaded"], account["held"]) == (2, 1, 1)
    other.target.close()


DAMAGED: dict[str, tuple[bytes | None, list[str], str]] = {
    "nowhere": (None, [], "No such file"),
    "torn.gz": (gzip.compress(EVENT * 100, mtime=0)[:-9], [], "ended before"),
    "torn.zst": (as_zstd([EVENT * 100])[:-9], [], "Truncated"),
    "torn.parquet": (as_column("body")([EVENT])[:-9], [], "Parquet magic bytes"),
    "odd.parquet": (as_column("odd")([EVENT]), [], "--column"),
    "wrong.parquet": (as_column("body")([EVENT]), ["--column", "n"], "--column"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_cannot_be_read_is_named(local: Importing, name: str) -> None:
    """One sentence, exit code 2, and nothing is landed, of the files beside it neither."""
    content, options, says = DAMAGED[name]
    whole = local.write(EVENT)
    file = local.write(content, name) if content else str(local.folder / name)
    result = local.run("import", SCHEMA, whole, file, *options)
    assert isinstance(result.exception, ImportFileError)
    assert result.exception.usage
    sentence = str(result.exception)
    assert file in sentence
    assert says in sentence
    assert "\n" not in sentence
    assert local.landed() == []


def test_a_column_may_have_any_name(local: Importing) -> None:
    """If it is said."""
    file = local.write(as_column("odd")([EVENT]))
    assert local.imported(file, "--column", "odd")[0]["landed"] == 1


def test_standard_input_and_pipes_are_read_once(
    local: Importing,
) -> None:
    """And are the same import as a file of the same content."""
    content = gzip.compress(EVENT)
    result = CliRunner().invoke(cli, ["import", SCHEMA, "-", "--json"], input=content)
    assert json.loads(result.output)["files"][0]["landed"] == 1
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    try:
        [found] = local.imported(f"/dev/fd/{reader}", local.write(content))[:1]
    finally:
        os.close(reader)
    assert (found["records"], found["landed"]) == (1, 0)


def test_killed_imports_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed at every file operation in turn: in the end everything is there, nothing twice."""
    bodies = [b'{"event_id":"e%d"}' % at for at in range(7)]
    url = f"duckdb:///{tmp_path / 'w.duckdb'}"
    with installed(tmp_path, url, monkeypatch) as parts:
        installation = Importing(Installation(*parts), tmp_path)
        file = installation.write(as_lines(bodies))
        command = [sys.executable, "-m", "tests.killed_imports", file, str(tmp_path / "landing")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        assert int(ended.stdout) > len(bodies)
        assert [row["body"] for row in installation.landed()] == bodies
        assert [row["offset"] for row in installation.landed()] == list(range(len(bodies)))
        assert not list(installation.warehouse.landing.rglob("*.tmp"))
