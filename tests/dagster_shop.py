"""An installation with one integration, seen through Dagster as its daemon and UI see it."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import psycopg
import pytest

from customerio_pipeline.definitions import integration_definitions
from customerio_pipeline.registry.records import Arrays, Integration
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings, load_settings
from customerio_pipeline.warehouse import open_warehouse
from tests.landed_events import land


class Shop:
    """The integration “Shop”, its Dagster definitions and an instance to run them on."""

    def __init__(self, settings: Settings, integration: Integration) -> None:
        self.settings = settings
        self.integration = integration
        self.definitions = integration_definitions(settings, integration)
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.job = self.definitions.resolve_job_def("shop_load")

    @property
    def is_duckdb(self) -> bool:
        """Whether the warehouse is a DuckDB file."""
        return self.settings.warehouse_kind == "duckdb"

    @property
    def warehouse_file(self) -> Path:
        """The DuckDB file."""
        return Path(self.settings.warehouse.removeprefix("duckdb:///"))

    @property
    def has_tables(self) -> bool:
        """Whether something was loaded."""
        with closing(open_warehouse(self.settings)) as target:
            return bool(target.state("shop").table_columns)

    def land(self, *bodies: bytes, first: int = 0, signature: str = "unchecked") -> Path:
        """Land bodies as one file, numbered from `first`, with a verdict."""
        landing = self.settings.landing
        return land(landing, "shop", bodies, first=first, signature=signature).path(landing)

    def tick(self) -> dg.SensorResult:
        """Evaluate the sensor as Dagster's daemon does."""
        sensor = self.definitions.resolve_sensor_def("shop_sensor")
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=self.definitions.get_repository_def(),
        )
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result

    def run(
        self, request: dg.RunRequest | None = None, select: Sequence[dg.AssetKey] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Execute the run that a tick requested, or one made by hand."""
        return self.job.execute_in_process(
            instance=self.instance,
            run_config=request.run_config if request else None,
            asset_selection=select,
            raise_on_error=False,
        )

    def event_ids(self) -> list[object]:
        """Return the rows of `data`, read as a user would."""
        with closing(open_warehouse(self.settings)) as target:
            rows = target.query("SELECT event_id FROM shop.data ORDER BY 1").rows
        return [row[0] for row in rows]

    def change_warehouse(self, sql: str) -> None:
        """Do to the warehouse what nobody should."""
        if self.is_duckdb:
            with closing(duckdb.connect(self.warehouse_file)) as connection:
                connection.execute(sql)
        else:
            with psycopg.connect(self.settings.warehouse, autocommit=True) as postgres:
                postgres.execute(sql.encode())


@contextmanager
def opened_shop(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    warehouse_url: str = "",
    arrays: Arrays = Arrays.JSON,
) -> Iterator[Shop]:
    """Yield an installation in `home` whose runs do not linger."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(home))
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE", warehouse_url)
    monkeypatch.setenv("CUSTOMERIO_LOAD_IDLE_SECONDS", "0")
    monkeypatch.setenv("CUSTOMERIO_WAREHOUSE_WAIT_SECONDS", "0.2")
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        integration, _ = registry.create("Shop", arrays=arrays)
    shop = Shop(settings, integration)
    with shop.instance:
        yield shop


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Return what Dagster shows as the reason of a failed load."""
    data = result.failure_data_for_node("load_shop")
    assert data is not None
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


@contextmanager
def held_by_another_process(file: Path) -> Iterator[int]:
    """Open the warehouse for writing in a process of its own; yield its id."""
    file.parent.mkdir(parents=True)
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.communicate("\n")
