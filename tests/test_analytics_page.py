"""docs/analytics.md is true: every statement runs on both warehouses and gives what it shows."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from customerio_pipeline.warehouse.view_columns import OUTCOMES, VIEWS
from tests import analytics_page
from tests.postgres_server import fresh_database, running_postgres
from tests.view_houses import DuckDBHouse, House, PostgresHouse


@pytest.fixture(scope="module", params=["duckdb", "postgresql"])
def simulated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, House]]:
    """Give either warehouse with the page's events in it."""
    folder = tmp_path_factory.mktemp("house")
    if request.param == "duckdb":
        duck = DuckDBHouse(folder)
        with closing(duck):
            duck.load(*analytics_page.simulated_bodies())
            yield request.param, duck
        return
    with running_postgres() as server, fresh_database(server) as url:
        postgres = PostgresHouse(folder, url)
        with closing(postgres):
            postgres.load(*analytics_page.simulated_bodies())
            yield request.param, postgres


def test_every_statement_gives_what_the_page_shows(simulated: tuple[str, House]) -> None:
    """Ten questions, the same rows from both warehouses."""
    kind, house = simulated
    statements = list(analytics_page.statements(kind))
    assert len(statements) == 10
    for sql, table in statements:
        assert analytics_page.result_of(house, sql) == table, sql


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_described(view: str) -> None:
    """The page says what Dagster shows: the columns as they are."""
    assert analytics_page.column_tables()[view] == analytics_page.columns_of(view)


def test_the_order_of_states_is_the_one_used() -> None:
    """The page writes it out."""
    text = " ".join(analytics_page.PAGE.read_text().split())
    assert ", ".join(OUTCOMES) in text
