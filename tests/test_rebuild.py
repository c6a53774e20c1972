"""``rebuild``: the tables come out as landing has them, whatever was done to them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from customerio_pipeline.errors import RegistryError, WarehouseError
from customerio_pipeline.landing.offsets import OffsetSet
from customerio_pipeline.landing.releases import release
from customerio_pipeline.loading.report import LoadReport
from customerio_pipeline.orchestration.drain_run import DrainConfig
from customerio_pipeline.orchestration.keys import data_key, load_op_name
from customerio_pipeline.registry.records import Arrays
from customerio_pipeline.registry.schema_names import check_schema
from customerio_pipeline.verifying.rebuilding import rebuild, schema_beside
from tests.dagster_shop import failure_of, opened_shop
from tests.installation import Installation, installed
from tests.landed_bodies import SCHEMA, Warehouse
from tests.landed_events import event, land

BODIES = [
    b'{"event_id":"e1","metric":"sent","data":{"customer_id":"007","links":[{"a":1},{"a":2}]}}',
    b'{"event_id":"e2","x":1}',
    b'{"event_id":"e3","x":"text"}',
    b'[{"event_id":"e4","x":1.5},7]',
    b"no JSON",
]

DIE = """
import os, sys
from pathlib import Path
from customerio_pipeline.settings import Settings
from customerio_pipeline.loading.staging import DEFAULT_LAYOUT
from customerio_pipeline.verifying import rebuilding
from customerio_pipeline.warehouse import open_warehouse
target = open_warehouse(Settings.model_validate({"CUSTOMERIO_WAREHOUSE": sys.argv[3]}))
if sys.argv[4] == "loading":
    progress = lambda report: os._exit(9)
else:
    progress = lambda report: None
    rebuilding._compare = lambda *arguments: os._exit(9)
rebuilding.rebuild(target, Path(sys.argv[2]), sys.argv[1], DEFAULT_LAYOUT, progress=progress)
"""


class Rebuilt(Installation):
    """An installation whose tables are made anew."""

    def rebuild(self, *options: str) -> dict[str, Any]:
        """Rebuild by the command line."""
        result = self.run("rebuild", SCHEMA, "--json", *options)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    def check_whole(self) -> None:
        """Check that everything adds up, row by row, and that nothing is left beside."""
        verified = self.run("verify", "--deep")
        assert verified.exit_code == 0, verified.output
        assert self.schemas() == {SCHEMA}

    def schemas(self) -> set[object]:
        """Return the schemas that have a table."""
        found = self.warehouse.rows(
            "SELECT DISTINCT table_schema FROM information_schema.tables"
            " WHERE table_schema LIKE 'stitch%'"
        )
        return {name for (name,) in found}

    def content(self) -> dict[str, list[tuple[object, ...]]]:
        """Return every row of every table but those of the loads."""
        tables = self.warehouse.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = '{s}'"
            " AND table_type = 'BASE TABLE' AND table_name NOT IN ('_sdc_loads')"
        )
        return {str(name): self._rows(str(name)) for (name,) in sorted(tables, key=str)}

    def _rows(self, table: str) -> list[tuple[object, ...]]:
        result = self.warehouse.target.query(f'SELECT * FROM {SCHEMA}."{table}"')  # noqa: S608  a test's names
        kept = [
            at
            for at, name in enumerate(result.columns)
            if name not in ("_sdc_batched_at", "_sdc_rejected_at")
        ]
        return sorted((tuple(row[at] for at in kept) for row in result.rows), key=repr)


@pytest.fixture(params=[Arrays.JSON, Arrays.SUBTABLES])
def installation(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    warehouse_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Rebuilt]:
    """Give one of each kind, with arrays as JSON text and as tables."""
    with installed(tmp_path, warehouse_url, monkeypatch, request.param) as (warehouse, registry):
        yield Rebuilt(warehouse, registry)


@pytest.fixture
def filled(installation: Rebuilt) -> Rebuilt:
    """Give one with events, some of them held, one of these released."""
    house = installation.warehouse
    house.load_bodies(*BODIES)
    house.land(*BODIES[:2], signatures=["invalid", "stale"])
    house.load()
    release(house.landing, SCHEMA, {"w0": OffsetSet([(5, 5)])})
    house.load()
    return installation


def test_a_sound_table_comes_out_the_same(filled: Rebuilt) -> None:
    """All of it: arrays, rejected records, what is held, names and order of columns."""
    before, columns = filled.content(), filled.warehouse.columns()
    found = filled.rebuild()

    assert (found["rows"], found["deliveries"], found["is_swapped"]) == (4, 6, True)
    assert (found["different"], found["missing"], found["surplus"]) == (0, 0, 0)
    assert filled.content() == before
    assert filled.warehouse.columns() == columns
    filled.check_whole()
    assert filled.warehouse.load() == []


def test_what_was_done_to_the_table_is_named_and_undone(filled: Rebuilt) -> None:
    """Rows deleted, changed and invented; a check changes nothing."""
    before = filled.content()
    filled.warehouse.change(
        "DELETE FROM {s}.data WHERE event_id = 'e1'",
        "UPDATE {s}.data SET metric = 'opened' WHERE event_id = 'e2'",
        "INSERT INTO {s}.data (event_id) VALUES ('e9')",
    )
    changed = filled.content()
    checked = filled.run("rebuild", SCHEMA, "--check")

    assert checked.exit_code == 1
    assert "1 were different, 1 missing, 1 surplus" in checked.output
    assert filled.content() == changed
    assert filled.schemas() == {SCHEMA}
    found = filled.rebuild()
    assert [(each["event_id"], each["what"]) for each in found["examples"]] == [
        ("e1", "missing"),
        ("e2", "different"),
        ("e9", "surplus"),
    ]
    assert filled.content() == before
    filled.check_whole()
    assert filled.rebuild("--check")["is_swapped"] is False


def test_a_dropped_table_is_made_again(filled: Rebuilt) -> None:
    """As `load` does, and its views with it."""
    before = filled.content()
    cascade = "" if filled.warehouse.is_duckdb else " CASCADE"
    filled.warehouse.change(f"DROP TABLE {{s}}.data{cascade}")
    found = filled.rebuild()

    assert found["missing"] == 4
    assert filled.content()["data"] == before["data"]
    assert filled.warehouse.rows("SELECT count(*) FROM {s}.events") == [(4,)]


def test_nothing_landed_is_nothing_to_rebuild(installation: Rebuilt) -> None:
    """Before the first event."""
    found = installation.rebuild()

    assert (found["rows"], found["is_swapped"]) == (0, False)
    assert installation.schemas() <= {SCHEMA}


def test_loads_go_on_meanwhile(filled: Rebuilt) -> None:
    """What lands and is loaded while the new tables are filled is in them, too."""
    house = filled.warehouse
    other = house.open(wait_seconds=20)
    seen: list[int] = []

    def load_one_more(report: LoadReport) -> None:
        if not seen:
            house.load_bodies(b'{"event_id":"meanwhile"}')
        seen.append(report.deliveries)

    try:
        found = rebuild(other, house.landing, SCHEMA, house.layout, progress=load_one_more)
    finally:
        other.close()

    assert found.is_same
    assert found.rows == 5
    assert "meanwhile" in house.events()
    filled.check_whole()


@pytest.mark.parametrize("moment", ["loading", "comparing"])
def test_a_rebuild_that_was_killed_leaves_the_table_as_it_was(filled: Rebuilt, moment: str) -> None:
    """The next one begins anew, and removes what is left of it."""
    house = filled.warehouse
    before = filled.content()
    house.target.close()
    killed = subprocess.run(
        [sys.executable, "-c", DIE, SCHEMA, house.landing, house.url, moment], check=False
    )
    house.target = house.open(wait_seconds=20)

    assert killed.returncode == 9
    assert schema_beside(SCHEMA) in filled.schemas()
    assert filled.content() == before
    assert filled.rebuild()["is_swapped"]
    assert filled.content() == before
    filled.check_whole()


def test_no_other_integration_is_touched(filled: Rebuilt) -> None:
    """However its schema is called: what is filled beside has a name that none can have."""
    house = filled.warehouse
    names = [f"{SCHEMA}__rebuild", "a" * 63, f"{'a' * 62}b"]
    for name in names:
        filled.registry.create(name, name)
        land(house.landing, name, [event("theirs")])
    assert filled.run("load").exit_code == 0

    for name in [SCHEMA, *names]:
        assert filled.run("rebuild", name, "--check").exit_code == 0, name
        with pytest.raises(RegistryError):
            check_schema(schema_beside(name))
    assert len({schema_beside(name) for name in names}) == len(names)
    assert all(len(schema_beside(name)) <= 63 for name in names)
    for name in names:
        rows = house.target.query(f'SELECT event_id FROM "{name}".data').rows  # noqa: S608  a test's names
        assert rows == [("theirs",)]


def test_landing_that_lost_a_file_rebuilds_nothing(filled: Rebuilt) -> None:
    """The table knows more than landing: a swap would lose it."""
    before = filled.content()
    for file in filled.warehouse.landing.rglob("*-000000000000-*.parquet"):
        file.unlink()
    result = filled.run("rebuild", SCHEMA)

    assert "a rebuild would lose them" in str(result.exception)
    assert filled.content() == before
    assert filled.schemas() == {SCHEMA}


@pytest.mark.parametrize("installation", [Arrays.SUBTABLES], indirect=True)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "UPDATE {s}.data__data__links SET a = 3 WHERE a = 2",
            (
                "e1 in stitch_customerio.data__data__links differs from what was landed in the"
                " elements [1]."
            ),
        ),
        (
            "DELETE FROM {s}.data__data__links",
            "differs from what was landed in the elements [0], [1].",
        ),
        (
            "UPDATE {s}.data__data__links SET _sdc_source_key_event_id = 'e9'",
            "e9 is in stitch_customerio.data__data__links and not in stitch_customerio.data.",
        ),
    ],
)
def test_elements_of_arrays_are_compared(filled: Rebuilt, change: str, said: str) -> None:
    """By `verify --deep`, which names them, and by a rebuild, which brings them back."""
    before = filled.content()
    filled.warehouse.change(change)
    verified = filled.run("verify", "--deep")
    assert (verified.exit_code, said in verified.output) == (1, True), verified.output
    found = filled.rebuild()
    assert "e1" in [each["event_id"] for each in found["examples"]]
    assert (found["missing"], found["surplus"]) == (0, 0)
    assert filled.content() == before
    filled.check_whole()


def test_privileges_and_views_of_others_stay(
    tmp_path: Path, postgres_url: str, filled_postgres: Warehouse
) -> None:
    """Rows change places, not tables."""
    house = filled_postgres
    house.change(
        "CREATE VIEW public.theirs AS SELECT count(*) AS events FROM {s}.data",
        "GRANT SELECT ON {s}.data TO PUBLIC",
        "DELETE FROM {s}.data WHERE event_id = 'e1'",
    )
    try:
        assert not rebuild(house.target, house.landing, SCHEMA, house.layout).is_same
        assert house.rows("SELECT events FROM public.theirs") == [(4,)]
        with psycopg.connect(postgres_url) as connection:
            [(privileges,)] = connection.execute(
                "SELECT relacl::text FROM pg_class WHERE oid = %s::regclass", [f"{SCHEMA}.data"]
            )
        assert "=r/" in privileges
    finally:
        house.change("DROP VIEW IF EXISTS public.theirs")


def test_a_role_that_may_make_no_schema_is_told_the_grant(
    tmp_path: Path, postgres_url: str
) -> None:
    """Nothing is changed; what it says works when it is run."""
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("CREATE ROLE rebuilder LOGIN")
        owner.execute("CREATE SCHEMA stitch_customerio AUTHORIZATION rebuilder")
        house = Warehouse(tmp_path, postgres_url.replace("//postgres", "//rebuilder", 1))
        try:
            house.load_bodies(*BODIES)
            with pytest.raises(WarehouseError, match=r"GRANT CREATE ON DATABASE .*; there") as told:
                rebuild(house.target, house.landing, SCHEMA, house.layout)
            grant = re.search(r"GRANT [^;]*", str(told.value))
            assert grant is not None
            owner.execute(grant[0].encode())
            assert rebuild(house.target, house.landing, SCHEMA, house.layout).is_same
        finally:
            house.target.close()
            owner.execute("DROP OWNED BY rebuilder CASCADE")
            owner.execute("DROP ROLE rebuilder")


@pytest.fixture
def filled_postgres(tmp_path: Path, postgres_url: str) -> Iterator[Warehouse]:
    """Give a PostgreSQL warehouse with events."""
    warehouse = Warehouse(tmp_path, postgres_url)
    warehouse.load_bodies(*BODIES)
    yield warehouse
    warehouse.target.close()


def test_dagster_rebuilds_with_a_configured_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str
) -> None:
    """Compared only, the run fails and names the rows; else it swaps and says how many."""
    with opened_shop(tmp_path, monkeypatch, warehouse_url) as shop:
        shop.land(event("e1"), event("e2"))
        assert shop.run().success
        shop.change_warehouse("DELETE FROM shop.data WHERE event_id = 'e1'")

        def run(**config: bool) -> dg.ExecuteInProcessResult:
            ops = {load_op_name("shop"): DrainConfig(rebuild=True, **config)}
            return shop.run(dg.RunRequest(run_config=dg.RunConfig(ops=ops)))

        compared = run(compare_only=True)
        assert not compared.success
        assert "e1 (missing)" in failure_of(compared)
        assert shop.event_ids() == ["e2"]
        assert run().success
        assert shop.event_ids() == ["e1", "e2"]
        newest = shop.instance.get_latest_materialization_event(data_key("shop"))
        assert newest is not None
        assert newest.asset_materialization is not None
        metadata = newest.asset_materialization.metadata
        assert (metadata["rows_missing"].value, metadata["rebuilt_rows"].value) == (1, 2)
