"""Views for analysts are kept up to date by loads, and never in anybody's way."""

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest

from customerio_pipeline.warehouse.postgres_tables import look
from customerio_pipeline.warehouse.postgres_target import PostgresTarget
from customerio_pipeline.warehouse.postgres_views import PostgresViews
from customerio_pipeline.warehouse.view_columns import VIEWS
from tests.landed_bodies import SCHEMA
from tests.postgres_server import fresh_database, running_postgres
from tests.view_houses import DuckDBHouse, House, PostgresHouse

FIRST = b'{"event_id":"e1","metric":"sent","data":{"delivery_id":"D1","subject":"Hi"}}'
NEXT = b'{"event_id":"e2","metric":"opened","data":{"delivery_id":"D1"}}'
WITH_NEW_KEY = b'{"event_id":"e2","metric":"opened","data":{"delivery_id":"D1"},"zoo":1}'


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Give a PostgreSQL server."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def database(server: str) -> Iterator[str]:
    """Give an empty database."""
    with fresh_database(server) as url:
        yield url


@pytest.fixture
def postgres(database: str, tmp_path: Path) -> Iterator[PostgresHouse]:
    """Give an empty warehouse in PostgreSQL."""
    house = PostgresHouse(tmp_path, database)
    yield house
    house.close()


@pytest.fixture
def duck(tmp_path: Path) -> Iterator[DuckDBHouse]:
    """Give an empty warehouse in DuckDB."""
    house = DuckDBHouse(tmp_path)
    yield house
    house.close()


@pytest.fixture(params=["duck", "postgres"])
def house(request: pytest.FixtureRequest) -> House:
    """Give an empty warehouse of either kind."""
    found: House = request.getfixturevalue(request.param)
    return found


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestBoth:
    """What holds for either warehouse."""

    def test_a_new_column_shows_in_events_after_the_load_that_added_it(self, house: House) -> None:
        """Under its own name, or as the common field that it is."""
        house.load(FIRST)
        house.load(b'{"event_id":"e2","zoo":1,"data":{"campaign_id":7}}')
        assert house.query("SELECT zoo, campaign_id FROM {s}.events ORDER BY event_id")[1] == [
            (None, None),
            (1, 7),
        ]

    def test_a_dropped_view_comes_back(self, house: House) -> None:
        """With the next load."""
        house.load(FIRST)
        house.meddle("DROP VIEW {s}.deliveries")
        house.load(NEXT)
        assert house.query("SELECT status FROM {s}.deliveries")[1] == [("opened",)]

    def test_an_older_definition_is_replaced(self, house: House) -> None:
        """A view with our mark and another version is ours, whatever it says."""
        house.load(FIRST)
        house.meddle("DROP VIEW {s}.events")
        house.meddle("CREATE VIEW {s}.events AS SELECT 1 AS old")
        house.meddle(
            "COMMENT ON VIEW {s}.events"
            " IS 'Kept up to date by customerio-pipeline (0123456789abcdef).'"
        )
        house.load(NEXT)
        assert len(house.query("SELECT event_id FROM {s}.events")[1]) == 2

    @pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
    def test_what_somebody_else_made_stays(
        self, house: House, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is not touched, told of once, and the other views do not depend on it."""
        house.load(FIRST)
        house.meddle("DROP VIEW {s}.events")
        house.meddle(f"CREATE {kind} {{s}}.events AS SELECT 'theirs' AS mine")
        house.load(WITH_NEW_KEY)
        house.load(b'{"event_id":"e3","metric":"clicked","data":{"delivery_id":"D1"},"yak":1}')
        assert house.query("SELECT * FROM {s}.events") == (["mine"], [("theirs",)])
        assert house.query("SELECT status FROM {s}.deliveries")[1] == [("clicked",)]
        [warning] = _warnings(caplog)
        assert f"{SCHEMA}.events" in warning

    def test_a_dropped_column_breaks_no_view_for_longer_than_a_load(self, house: House) -> None:
        """PostgreSQL drops the views with it; DuckDB leaves views that fail."""
        house.load(FIRST)
        cascade = " CASCADE" if isinstance(house, PostgresHouse) else ""
        house.meddle("ALTER TABLE {s}.data DROP COLUMN data__subject" + cascade)
        house.load(NEXT)
        for view in VIEWS:
            assert house.query(f"SELECT * FROM {{s}}.{view}")[1]  # noqa: S608  names of ours

    def test_comments_tell_people_what_a_view_is(self, house: House) -> None:
        """They show in clients of both warehouses."""
        house.load(FIRST)
        sql = (
            "SELECT obj_description('{s}.events'::regclass)"
            if isinstance(house, PostgresHouse)
            else "SELECT comment FROM duckdb_views() WHERE view_name = 'events'"
        )
        [(comment,)] = house.query(sql)[1]
        assert str(comment).startswith(VIEWS["events"][0])


class TestDuckDB:
    """A view's text is read anew by whoever opens the file, under whatever name."""

    def test_the_file_under_any_name(self, duck: DuckDBHouse) -> None:
        """Attached as something else, or opened as the schema's namesake."""
        duck.load(FIRST)
        file = duck.warehouse.file
        namesake = file.with_name(f"{SCHEMA}.duckdb")
        file.rename(namesake)
        with closing(duckdb.connect()) as connection:
            connection.execute("CREATE TABLE data AS SELECT 'somebody else''s' AS event_id")
            connection.execute(f"ATTACH '{namesake}' AS other (READ_ONLY)")
            attached = connection.execute(
                f"SELECT event_id FROM other.{SCHEMA}.events"  # noqa: S608  a constant
            ).fetchall()
        with closing(duckdb.connect(namesake, read_only=True)) as connection:
            opened = connection.execute(
                f"SELECT status FROM {SCHEMA}.{SCHEMA}.deliveries"  # noqa: S608  a constant
            ).fetchall()
        assert (attached, opened) == ([("e1",)], [("sent",)])


class TestPostgres:
    """Views know what they depend on, have owners and privileges, and can be locked."""

    def test_views_are_replaced_only_when_something_changed(self, postgres: PostgresHouse) -> None:
        """A load without new columns does not touch them."""
        oids = "SELECT oid, xmin::text FROM pg_class WHERE relname IN ('events', 'deliveries')"
        postgres.load(FIRST)
        before = postgres.query(oids)
        postgres.load(NEXT)
        assert postgres.query(oids) == before

    def test_views_of_others_survive_new_columns(
        self, postgres: PostgresHouse, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A column at the end is added in place."""
        postgres.load(FIRST)
        postgres.meddle("CREATE VIEW {s}.mine AS SELECT * FROM {s}.events")
        postgres.load(WITH_NEW_KEY)
        assert postgres.query("SELECT zoo FROM {s}.events WHERE event_id = 'e2'")[1] == [(1,)]
        assert len(postgres.query("SELECT * FROM {s}.mine")[1]) == 2
        assert not _warnings(caplog)

    def test_a_view_that_cannot_change_in_place_stays_while_others_depend_on_it(
        self, postgres: PostgresHouse, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The load succeeds, tells so once, and the next process tries again."""
        postgres.load(FIRST)
        self._make_old(postgres)
        postgres.meddle("CREATE VIEW {s}.mine AS SELECT old FROM {s}.events")
        postgres.load(NEXT)
        postgres.load(b'{"event_id":"e3"}')
        assert postgres.query("SELECT old FROM {s}.mine")[1] == [(1,)]
        assert postgres.query("SELECT count(*) FROM {s}.data")[1] == [(3,)]
        assert postgres.query("SELECT event_count FROM {s}.deliveries")[1] == [(2,)]
        [warning] = _warnings(caplog)
        assert "other views depend on it" in warning
        postgres.meddle("DROP VIEW {s}.mine")
        postgres.warehouse.target.close()
        postgres.warehouse.target = PostgresTarget(postgres.url, wait_seconds=20)
        postgres.load(b'{"event_id":"e4"}')
        assert len(postgres.query("SELECT event_id FROM {s}.events")[1]) == 4

    def test_privileges_survive_a_new_definition(self, postgres: PostgresHouse) -> None:
        """Who could read the old one can read the new one, and nobody else."""
        postgres.meddle('CREATE ROLE "views test analyst"')
        postgres.meddle("CREATE ROLE views_test_intern")
        try:
            postgres.load(FIRST)
            postgres.meddle(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA {s} GRANT SELECT ON TABLES TO views_test_intern"
            )
            self._make_old(postgres)
            postgres.meddle("REVOKE ALL ON {s}.events FROM views_test_intern")
            postgres.meddle('GRANT SELECT ON {s}.events TO "views test analyst" WITH GRANT OPTION')
            postgres.load(NEXT)
            [(granted,)] = postgres.query(
                "SELECT array_agg(grantee::regrole::text || ' ' || privilege_type || is_grantable)"
                " FROM pg_class, aclexplode(relacl)"
                " WHERE oid = '{s}.events'::regclass AND grantee <> relowner"
            )[1]
            assert granted == ['"views test analyst" SELECTtrue']
            assert len(postgres.query("SELECT event_id FROM {s}.events")[1]) == 2
        finally:
            postgres.meddle('DROP OWNED BY "views test analyst", views_test_intern')
            postgres.meddle('DROP ROLE "views test analyst", views_test_intern')

    def test_a_reader_is_not_waited_for(
        self, postgres: PostgresHouse, database: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The load goes on with the old view; a later one renews it. No setting is changed."""
        postgres.load(FIRST)
        self._make_old(postgres)
        with psycopg.connect(database) as reader:
            reader.execute(f"SELECT * FROM {SCHEMA}.events".encode())  # noqa: S608  a constant
            postgres.load(NEXT)
            assert postgres.query("SELECT count(*) FROM {s}.data")[1] == [(2,)]
            assert postgres.query("SELECT * FROM {s}.events") == (["old"], [(1,)])
        with postgres.connection.transaction():
            postgres.meddle("SET LOCAL lock_timeout = '7s'")
            self._keep(postgres)
            assert postgres.query("SHOW lock_timeout")[1] == [("7s",)]
        assert postgres.query("SELECT count(event_id) FROM {s}.events")[1] == [(2,)]
        assert not _warnings(caplog)

    def test_a_type_of_that_name(
        self, postgres: PostgresHouse, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It hinders the view, is told of, and the load succeeds."""
        postgres.meddle("CREATE SCHEMA {s}")
        postgres.meddle("CREATE TYPE {s}.events AS ENUM ('a')")
        postgres.load(FIRST)
        assert postgres.query("SELECT status FROM {s}.deliveries")[1] == [("sent",)]
        [warning] = _warnings(caplog)
        assert f"{SCHEMA}.events is left as it is" in warning
        assert "already exists" in warning

    def test_a_role_that_may_not_create_views(
        self, postgres: PostgresHouse, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Its loads succeed; the views are left as they are."""
        postgres.load(FIRST)
        postgres.meddle("DROP VIEW {s}.events")
        postgres.meddle("CREATE ROLE views_test_loader")
        try:
            postgres.meddle("GRANT USAGE ON SCHEMA {s} TO views_test_loader")
            postgres.meddle("GRANT ALL ON {s}.data TO views_test_loader")
            with postgres.connection.transaction():
                postgres.meddle("SET LOCAL ROLE views_test_loader")
                postgres.meddle("INSERT INTO {s}.data (event_id) VALUES ('e2')")
                self._keep(postgres)
            assert postgres.query("SELECT count(*) FROM {s}.data")[1] == [(2,)]
            [warning] = _warnings(caplog)
            assert "permission denied" in warning
        finally:
            postgres.meddle("DROP OWNED BY views_test_loader")
            postgres.meddle("DROP ROLE views_test_loader")

    @staticmethod
    def _keep(postgres: PostgresHouse) -> None:
        """Do on the user's connection what the last step of a merge does."""
        columns = look(postgres.connection, SCHEMA)["data"].columns
        PostgresViews().keep(postgres.connection, SCHEMA, columns)

    @staticmethod
    def _make_old(postgres: PostgresHouse) -> None:
        """Replace `events` by a view of ours from another time, with another column."""
        postgres.meddle("DROP VIEW {s}.events")
        postgres.meddle("CREATE VIEW {s}.events AS SELECT 1 AS old")
        postgres.meddle(
            "COMMENT ON VIEW {s}.events"
            " IS 'Kept up to date by customerio-pipeline (0123456789abcdef).'"
        )
