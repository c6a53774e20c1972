"""``import --from-table``: Stitch's table straight out of PostgreSQL or a DuckDB file."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from customerio_pipeline.cli import cli
from customerio_pipeline.errors import ImportFileError, WarehouseUnavailableError
from tests.importing import Importing
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA

TABLE = "stitch_customerio.data"
STATEMENTS = (
    "CREATE SCHEMA stitch_customerio",
    f"""CREATE TABLE {TABLE} (event_id TEXT, metric TEXT, timestamp BIGINT,
        data__customer_id__st TEXT, data__customer_id__bi BIGINT, "data__a b" DOUBLE PRECISION,
        data__machine BOOLEAN, data__recipients TEXT, _sdc_received_at TIMESTAMPTZ,
        _sdc_sequence BIGINT, _sdc_batched_at TIMESTAMPTZ, _sdc_table_version BIGINT)""",
    f"""INSERT INTO {TABLE} VALUES
        ('e2', 'opened', 1683356890, NULL, 42, 1.5, NULL, NULL,
         '2023-05-06 07:08:10.000001+00', 21, '2023-05-06 07:09:00+00', 0),
        ('e1', 'clicked', 1683356889, '008', NULL, NULL, false, '[{{"device_id":"d"}}]',
         '2023-05-06 07:08:11+00', 22, '2023-05-06 07:09:00+00', 0),
        ('e1', 'sent', 1683356889, '007', NULL, 16, true, NULL,
         '2023-05-06 07:08:09+00', 20, '2023-05-06 07:09:00+00', 0)""",  # noqa: S608  a test's constant
)
EVENTS = [
    {
        "event_id": "e2",
        "metric": "opened",
        "timestamp": 1683356890,
        "data": {"customer_id": 42, "a b": 1.5},
    },
    {
        "event_id": "e1",
        "metric": "clicked",
        "timestamp": 1683356889,
        "data": {"customer_id": "008", "machine": False, "recipients": [{"device_id": "d"}]},
    },
]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Importing]:
    """Give an installation."""
    with installed(tmp_path, f"duckdb:///{tmp_path / 'w.duckdb'}", monkeypatch) as parts:
        yield Importing(Installation(*parts), tmp_path)


@pytest.fixture
def stitch(postgres_url: str) -> str:
    """Return the URL of a PostgreSQL that Stitch loaded into."""
    with psycopg.connect(postgres_url, autocommit=True) as postgres:
        for statement in STATEMENTS:
            postgres.execute(statement.encode())
    return postgres_url


def check(local: Importing) -> None:
    """Check that the events are landed, once, as they were."""
    landed = local.landed()
    assert [json.loads(row["body"]) for row in landed] == EVENTS
    assert [row["_sdc_sequence"] for row in landed] == [21, 22]
    assert landed[0]["received_at"].isoformat() == "2023-05-06T07:08:10.000001+00:00"


def test_out_of_postgresql(local: Importing, stitch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its types, whatever order the rows are in; a repeat lands nothing."""
    monkeypatch.setenv("CUSTOMERIO_IMPORT_URL", stitch)
    [first] = local.imported("--from-table", TABLE)
    assert (first["records"], first["landed"]) == (2, 2)
    check(local)
    with psycopg.connect(stitch, autocommit=True) as postgres:
        # The rows lie in another order then.
        postgres.execute(b"UPDATE stitch_customerio.data SET metric = metric WHERE event_id = 'e2'")
    [again] = local.imported("--from-table", TABLE)
    assert (again["writer"], again["landed"]) == (first["writer"], 0)
    local.warehouse.load()
    assert set(local.warehouse.events()) == {"e1", "e2"}


def test_the_url_on_standard_input(local: Importing, stitch: str) -> None:
    """Where no variable is wanted; it shows nowhere."""
    local.warehouse.target.close()
    secret = sa.make_url(stitch).update_query_dict({"application_name": "secret-4b1d"})
    result = CliRunner().invoke(
        cli,
        ["import", SCHEMA, "--from-table", TABLE, "-", "--json"],
        input=secret.render_as_string(hide_password=False) + "\n",
    )
    assert result.exit_code == 0, result.output
    assert "secret-4b1d" not in result.output
    check(local)


def test_out_of_a_duckdb_file(local: Importing) -> None:
    """It is only read."""
    file = local.folder / "old.duckdb"
    with duckdb.connect(file) as connection:
        for statement in STATEMENTS:
            connection.execute(statement)
    content = file.read_bytes()
    [found] = local.imported("--from-table", TABLE, str(file))
    assert found["landed"] == 2
    check(local)
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("stitch_customerio.nothing", "does not exist"),
        ("stitch_customerio.other", "has no column event_id"),
    ],
)
def test_another_table_is_refused(
    local: Importing, stitch: str, monkeypatch: pytest.MonkeyPatch, table: str, said: str
) -> None:
    """With one sentence, and nothing is landed."""
    monkeypatch.setenv("CUSTOMERIO_IMPORT_URL", stitch)
    with psycopg.connect(stitch, autocommit=True) as postgres:
        postgres.execute("CREATE TABLE stitch_customerio.other (a TEXT)")
    result = local.run("import", SCHEMA, "--from-table", table)
    assert isinstance(result.exception, ImportFileError)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert local.landed() == []


def test_a_password_is_never_shown(local: Importing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that cannot be reached, nor of a URL that is malformed."""
    for url in ("postgresql://me:hunter2-9c@127.0.0.1:1/x", "postgresql://me:hunter2-9c@@h/x"):
        monkeypatch.setenv("CUSTOMERIO_IMPORT_URL", url)
        result = local.run("import", SCHEMA, "--from-table", TABLE)
        assert isinstance(result.exception, WarehouseUnavailableError)
        assert "hunter2-9c" not in result.output + str(result.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from-table", TABLE],
        ["--from-table", "data", "-"],
        ["--from-table", TABLE, "a.duckdb", "b.duckdb"],
        ["--from-table", TABLE, "postgresql://me:hunter2-9c@host/x"],
        ["--from-table", TABLE, "a.duckdb", "--column", "x"],
        [],
    ],
)
def test_usage(local: Importing, arguments: list[Any]) -> None:
    """What is missing, or too much, is said with exit code 2."""
    result = local.run("import", SCHEMA, *arguments)
    assert result.exit_code == 2
    assert "hunter2-9c" not in result.output
