"""PostgreSQL as a warehouse that fails, refuses or is busy: one sentence, and nothing is lost."""

import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from customerio_pipeline.errors import (
    WarehouseBusyError,
    WarehouseError,
    WarehouseUnavailableError,
)
from customerio_pipeline.loading.load import Loader, drain
from customerio_pipeline.registry.registry import Registry
from tests.dagster_shop import failure_of, opened_shop
from tests.landed_bodies import RECEIVED_NS, SCHEMA, Warehouse
from tests.postgres_server import OwnPostgres, fresh_database, running_postgres
from tests.postgres_sessions import (
    PATIENCE_SECONDS,
    body,
    holding,
    load_with,
    run,
    wait_for_lock,
)
from tests.test_load_faults import check_consistent
from tests.test_load_oracle import oracle, table

PASSWORD = "s3cret+wörd"  # noqa: S105  of a server that lives for seconds
IN_A_URL = "s3cret%2Bw%C3%B6rd"
LOCK_LOADS = "LOCK TABLE {s}._sdc_loads IN SHARE MODE"
"""Holds a load at the last step of its transaction."""


@pytest.fixture(scope="module")
def server(own_server: OwnPostgres) -> OwnPostgres:
    """Give a server that asks the role `loader` for its password, and nobody else."""
    rules = own_server.folder / "pg_hba.conf"
    rules.write_text("local all loader scram-sha-256\n" + rules.read_text())
    run(own_server.url, f"CREATE ROLE loader LOGIN PASSWORD '{PASSWORD}'")
    run(own_server.url, "SELECT pg_reload_conf()")
    return own_server


@pytest.fixture
def warehouse(tmp_path: Path, own_database: str) -> Iterator[Warehouse]:
    """Give a database as a warehouse, used by its owner."""
    warehouse = Warehouse(tmp_path, own_database)
    yield warehouse
    warehouse.target.close()


@pytest.fixture
def loader(tmp_path: Path, server: OwnPostgres, own_database: str) -> Iterator[Warehouse]:
    """Give a database as a warehouse, used by a role that may nothing yet."""
    assert server
    warehouse = Warehouse(tmp_path, as_loader(own_database))
    yield warehouse
    warehouse.target.close()


def as_loader(url: str, password: str = IN_A_URL) -> str:
    """Return the URL for the role `loader`."""
    return url.replace("postgres@", f"loader:{password}@", 1)


def name_of(url: str) -> str:
    """Return the database's name."""
    return url.rpartition("/")[2].partition("?")[0]


def command(home: Path, url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``customerio-pipeline`` in an installation with one integration."""
    with closing(Registry.open(f"sqlite:///{home / 'registry.sqlite'}")) as registry:
        if not registry.integrations():
            registry.create("Stitch Customerio")
    return subprocess.run(
        [Path(sys.executable).with_name("customerio-pipeline"), *arguments],
        env={"CUSTOMERIO_HOME": str(home), "CUSTOMERIO_WAREHOUSE": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_role_without_privileges_is_told_the_grant_it_needs(
    tmp_path: Path, own_database: str, loader: Warehouse
) -> None:
    """On the command line: exit code 1 and one line; what it says works when it is run."""
    loader.land(body(1))
    result = command(tmp_path, loader.url, "load")
    assert (result.returncode, result.stdout) == (1, "")
    grant = f'GRANT CREATE ON DATABASE "{name_of(own_database)}" TO "loader"'
    assert grant in result.stderr
    assert result.stderr.startswith("Error: The role loader may not load stitch_customerio into")
    assert result.stderr.count("\n") == 1
    run(own_database, grant)
    result = command(tmp_path, loader.url, "load")
    assert (result.returncode, result.stderr) == (0, "")
    assert run(loader.url, "SELECT event_id FROM {s}.data") == [("e1",)]


@pytest.mark.parametrize(
    ("before", "grants"),
    [
        pytest.param("", ["CREATE ON DATABASE"], id="nothing there"),
        pytest.param("CREATE SCHEMA {s}", ["USAGE, CREATE ON SCHEMA"], id="schema"),
        pytest.param(
            "CREATE SCHEMA {s}; GRANT USAGE ON SCHEMA {s} TO loader",
            ["USAGE, CREATE ON SCHEMA"],
            id="schema to look at",
        ),
        pytest.param(
            "CREATE SCHEMA {s}; GRANT ALL ON SCHEMA {s} TO loader;"
            " REVOKE TEMPORARY ON DATABASE {d} FROM public",
            ["TEMPORARY ON DATABASE"],
            id="no temporary tables",
        ),
        pytest.param("CREATE SCHEMA {s} AUTHORIZATION loader", [], id="schema of its own"),
    ],
)
def test_each_sentence_names_a_grant_after_which_the_load_goes_on(
    own_database: str, loader: Warehouse, before: str, grants: list[str]
) -> None:
    """Whatever a schema's owner has granted already."""
    loader.land(body(1))
    run(own_database, before.format(s=SCHEMA, d=f'"{name_of(own_database)}"'))
    told = grants_needed(own_database, loader)
    assert len(told) == len(grants)
    for statement, expected in zip(told, grants, strict=True):
        assert statement.startswith(f"GRANT {expected}")
    assert loader.rows("SELECT event_id FROM {s}.data") == [("e1",)]


def test_tables_of_another_owner_are_named(own_database: str, loader: Warehouse) -> None:
    """As after a load by another role: one sentence for all of them."""
    with closing(Warehouse(loader.landing.parent, own_database).target) as target:
        loader.land(body(1))
        load_with(loader, target)
        run(own_database, f"GRANT ALL ON SCHEMA {SCHEMA} TO loader")
        loader.land(body(2, later=1))
        [statement] = grants_needed(own_database, loader)
        assert f'ALTER TABLE "{SCHEMA}"."_sdc_watermarks" OWNER TO "loader"' in statement
    assert loader.rows("SELECT event_id FROM {s}.data ORDER BY 1") == [("e1",), ("e2",)]


def grants_needed(own_database: str, warehouse: Warehouse) -> list[str]:
    """Load, doing as told, until it works; return what was told."""
    told: list[str] = []
    while len(told) < 5:
        try:
            warehouse.load()
        except WarehouseError as error:
            found = re.fullmatch(r"The role loader may not .*: run (.*); there\.", str(error))
            if found is None:
                raise
            told.append(found[1])
            run(own_database, found[1])
        else:
            return told
    raise AssertionError(told)


def test_a_role_that_only_reads_by_default_loads(own_database: str, loader: Warehouse) -> None:
    """What it may decides, not what its sessions are set to."""
    run(own_database, f"CREATE SCHEMA {SCHEMA} AUTHORIZATION loader")
    run(own_database, "ALTER ROLE loader SET default_transaction_read_only = on")
    try:
        loader.load_bodies(body(1))
    finally:
        run(own_database, "ALTER ROLE loader RESET default_transaction_read_only")
    assert loader.rows("SELECT event_id FROM {s}.data") == [("e1",)]


def test_a_limit_on_statements_is_named(own_database: str, loader: Warehouse) -> None:
    """The load that met it changed nothing."""
    run(own_database, f"CREATE SCHEMA {SCHEMA} AUTHORIZATION loader")
    loader.load_bodies(body(1))
    loader.target.close()
    run(own_database, "ALTER ROLE loader SET statement_timeout = '300ms'")
    loader.land(body(2))
    try:
        with (
            holding(own_database, LOCK_LOADS),
            pytest.raises(WarehouseError, match='ALTER ROLE "loader" SET statement_timeout = 0'),
        ):
            loader.load()
    finally:
        run(own_database, "ALTER ROLE loader RESET statement_timeout")
    assert loader.rows("SELECT event_id FROM {s}.data") == [("e1",)]
    loader.load()
    check_consistent(loader)


def test_a_standby_is_told_from_a_primary(server: OwnPostgres, warehouse: Warehouse) -> None:
    """One sentence; the primary takes the load."""
    warehouse.load_bodies(body(1))
    warehouse.land(body(2))
    server.kill()
    signal = server.folder / "standby.signal"
    signal.touch()
    server.start()
    with pytest.raises(WarehouseUnavailableError, match="is read-only, as a standby is"):
        warehouse.load()
    server.kill()
    signal.unlink()
    server.start()
    warehouse.load()
    assert warehouse.rows("SELECT count(*) FROM {s}.data") == [(2,)]


def test_killed_in_the_middle_the_next_load_makes_it_right(
    server: OwnPostgres, warehouse: Warehouse
) -> None:
    """Design C4: at the first, a middle and the last step of a load's transactions."""
    deliveries: list[tuple[int, str, int, bytes]] = []

    def land(first: int, **values: object) -> None:
        bodies = [*(body(number, **values) for number in range(first, first + 20)), b"no JSON"]
        at = warehouse.next_offset.get("w0", 0)
        deliveries.extend(
            (RECEIVED_NS + at + index, "w0", at + index, each) for index, each in enumerate(bodies)
        )
        warehouse.land(*bodies)

    land(0)
    warehouse.load()
    with ThreadPoolExecutor(1) as thread:
        for number, locked in enumerate(("_sdc_watermarks", "data", "_sdc_loads")):
            land(10 * number + 5, **{f"key{number}": number})
            with holding(warehouse.url, f"LOCK TABLE {SCHEMA}.{locked} IN SHARE MODE"):
                future = thread.submit(warehouse.load)
                wait_for_lock(warehouse.url)
                server.kill()
                with pytest.raises(WarehouseUnavailableError, match="The connection to the") as e:
                    future.result(PATIENCE_SECONDS)
                assert "nothing was changed" in str(e.value)
            server.start()
            check_consistent(warehouse)
            if number:
                warehouse.load()
                assert (table(warehouse), len(warehouse.rejected())) == oracle(deliveries)
    check_consistent(warehouse)


def test_a_server_that_is_down_is_one_sentence_and_the_next_load_loads(
    server: OwnPostgres, tmp_path: Path, warehouse: Warehouse
) -> None:
    """For a load, a query and a look at the status."""
    warehouse.land(body(1), body(2))
    server.kill()
    for arguments in (["load"], ["query", "SELECT 1"]):
        result = command(tmp_path, warehouse.url, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert re.fullmatch(
            r"Error: The warehouse postgresql://\S+ cannot be reached: .*\n", result.stderr
        )
    server.start()
    result = command(tmp_path, warehouse.url, "load")
    assert (result.returncode, result.stderr) == (0, "")
    assert warehouse.rows("SELECT event_id FROM {s}.data ORDER BY 1") == [("e1",), ("e2",)]


def test_a_connection_lost_between_batches_is_made_again(warehouse: Warehouse) -> None:
    """The drain goes on as if nothing had been; of one lost in a batch it says so, and goes on."""
    loader = Loader(SCHEMA, warehouse.landing, warehouse.target)
    end = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'customerio-pipeline'"
    )
    with closing(loader), ThreadPoolExecutor(1) as thread:
        for number in range(3):
            warehouse.land(body(number))
            report = loader.load_next()
            assert report is not None
            assert report.row_count == number + 1
            assert run(warehouse.url, end) == [(True,)]
        warehouse.land(body(3))
        with holding(warehouse.url, LOCK_LOADS):
            future = thread.submit(loader.load_next)
            wait_for_lock(warehouse.url)
            run(warehouse.url, end)
            with pytest.raises(WarehouseUnavailableError, match="was lost"):
                future.result(PATIENCE_SECONDS)
        report = loader.load_next()
        assert report is not None
        assert report.row_count == 4
    check_consistent(warehouse)


def test_a_load_that_finds_another_under_way_says_so(warehouse: Warehouse) -> None:
    """After its time to wait; both together load everything."""
    warehouse.load_bodies(body(1))
    impatient = warehouse.open(wait_seconds=0.1)
    warehouse.land(body(2))
    with ThreadPoolExecutor(1) as thread:
        with holding(warehouse.url, LOCK_LOADS):
            future = thread.submit(warehouse.load)
            wait_for_lock(warehouse.url)
            loader = Loader(SCHEMA, warehouse.landing, impatient)
            with (
                closing(loader),
                pytest.raises(WarehouseBusyError, match=f"Another load of {SCHEMA} did not end"),
            ):
                list(drain(loader))
        assert [report.inserted for report in future.result(PATIENCE_SECONDS)] == [1]
    impatient.close()
    check_consistent(warehouse)


def test_the_password_is_shown_nowhere(
    server: OwnPostgres,
    tmp_path: Path,
    own_database: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by commands, nor in exceptions, logs, Dagster's events or the list of processes."""
    url = as_loader(own_database)
    shown = []
    wrong = as_loader(own_database, "wr0ng-s3cret")
    for address, *arguments in (
        (url, "config"),
        (url, "load"),
        (url, "query", "SELECT x"),
        (wrong, "load"),
        (url.replace("%2B", "@"), "load"),
    ):
        result = command(tmp_path, address, *arguments)
        assert "Traceback" not in result.stderr
        shown += [result.stdout, result.stderr]
    caplog.set_level(logging.DEBUG)
    home = tmp_path / "shop"
    with opened_shop(home, monkeypatch, url) as shop:
        shop.land(body(1))
        assert "GRANT CREATE ON DATABASE" in failure_of(shop.run())
        run(own_database, "CREATE SCHEMA shop AUTHORIZATION loader")
        assert shop.run().success
        for record in shop.instance.get_run_records():
            shown += map(repr, shop.instance.all_logs(record.dagster_run.run_id))
        shop.land(body(2), first=1)
        with (
            ThreadPoolExecutor(1) as thread,
            holding(own_database, "LOCK TABLE shop._sdc_loads IN SHARE MODE"),
        ):
            future = thread.submit(command, home, url, "load", "shop")
            wait_for_lock(own_database)
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    shown.append(process.read_text(errors="replace"))
    shown += [future.result().stdout, future.result().stderr]
    shown.append(caplog.text)
    shown.append((server.folder / "log").read_text())
    everything = "\n".join(shown)
    for secret in (PASSWORD, IN_A_URL, "s3cret", "wr0ng"):
        assert secret not in everything
    assert "loader" in everything


@pytest.fixture
def small(server: OwnPostgres) -> Iterator[Path]:
    """Give the folder of a tablespace with very little room, or skip the test."""
    folder = Path(tempfile.mkdtemp(prefix="customerio-small-"))
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("this user may not mount a file system")
        try:
            shutil.chown(folder, server.user or -1)
            run(server.url, f"CREATE TABLESPACE small LOCATION '{folder}'")
            yield folder
            run(server.url, "DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607
    finally:
        folder.rmdir()


def test_a_full_disk_is_one_sentence_and_the_next_load_loads(
    server: OwnPostgres, small: Path, tmp_path: Path
) -> None:
    """Nothing half done; with room again everything is there."""
    with fresh_database(server.url) as url:
        run(url, f'ALTER DATABASE "{name_of(url)}" SET default_tablespace = small')
        warehouse = Warehouse(tmp_path, url)
        with closing(warehouse.target):
            warehouse.load_bodies(body(0))
            # Texts that no compression makes small.
            texts = (random.Random(number).randbytes(40_000).hex() for number in range(40))
            warehouse.land(*(body(number, text=text) for number, text in enumerate(texts)))
            with pytest.raises(WarehouseError, match=r"has no room left: .*Make room there"):
                warehouse.load()
            check_consistent(warehouse)
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)  # noqa: S607
            warehouse.load()
            check_consistent(warehouse)
            assert warehouse.rows("SELECT count(text) FROM {s}.data") == [(40,)]


def test_a_given_server_is_used_by_the_tests(
    server: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`CUSTOMERIO_TEST_POSTGRES_URL` takes the place of the one that they start."""
    monkeypatch.setenv("CUSTOMERIO_TEST_POSTGRES_URL", server.url)
    with running_postgres() as url, fresh_database(url) as own_database:
        assert run(own_database, "SHOW data_directory") == [(str(server.folder),)]
