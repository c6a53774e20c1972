"""An installation with one integration, as the command line and SQL show it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from customerio_pipeline.cli import cli
from customerio_pipeline.loading.staging import Layout
from customerio_pipeline.registry.records import Arrays
from customerio_pipeline.registry.registry import Registry
from tests.landed_bodies import Warehouse


class Installation:
    """A registry, a landing folder and a warehouse."""

    def __init__(self, warehouse: Warehouse, registry: Registry) -> None:
        self.warehouse = warehouse
        self.registry = registry

    def run(self, *arguments: str) -> Result:
        """Run a command; it is a process of its own to the warehouse."""
        self.warehouse.target.close()
        result = CliRunner().invoke(cli, arguments)
        self.warehouse.target = self.warehouse.open(wait_seconds=20)
        return result


@contextmanager
def installed(
    home: Path,
    warehouse_url: str,
    monkeypatch: pytest.MonkeyPatch,
    arrays: Arrays = Arrays.JSON,
) -> Iterator[tuple[Warehouse, Registry]]:
    """Yield what an installation with the integration “Stitch Customerio” is made of."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(home))
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", warehouse_url)
    layout = Layout(subtables=arrays is Arrays.SUBTABLES)
    warehouse = Warehouse(home, warehouse_url, layout=layout)
    with closing(Registry.open(f"sqlite:///{home / 'registry.sqlite'}")) as registry:
        registry.create("Stitch Customerio", arrays=arrays)
        yield warehouse, registry
    warehouse.target.close()
