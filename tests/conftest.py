"""Fixtures that several test modules share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_server import (
    OwnPostgres,
    drop_schemas,
    fresh_database,
    own_postgres,
    running_postgres,
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Yield the URL of a server that all tests of this process share."""
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_database(postgres: str) -> Iterator[str]:
    """Yield the URL of a database of this process."""
    with fresh_database(postgres) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_database: str) -> str:
    """Return the URL of that database, empty."""
    drop_schemas(postgres_database)
    return postgres_database


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty warehouse of each kind."""
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path / 'warehouse' / 'customerio.duckdb'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="module")
def own_server() -> Iterator[OwnPostgres]:
    """Give a server that the tests of a module may kill and set up as they like."""
    with own_postgres() as server:
        yield server


@pytest.fixture
def own_database(own_server: OwnPostgres) -> Iterator[str]:
    """Give the URL of an empty database in it."""
    with fresh_database(own_server.url) as url:
        yield url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the test that takes longest, so that the others do not wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_up.py")
