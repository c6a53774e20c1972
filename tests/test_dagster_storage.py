"""Dagster's own storage: SQLite by default, PostgreSQL by a variable, and kept small."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import freeze_time

from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import SettingsError
from customerio_pipeline.orchestration.instance_storage import postgres_url
from customerio_pipeline.orchestration.keys import data_key
from customerio_pipeline.orchestration.prune_runs import prune_runs
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings
from tests.landed_events import event, land
from tests.postgres_server import fresh_database

CONFIGURATION = Path(__file__).parent.parent / "dagster_home" / "dagster.yaml"
SCHEMA = "stitch_customerio"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test an installation with an event in landing, and our instance's configuration."""
    dagster_home = tmp_path / "dagster_home"
    dagster_home.mkdir()
    shutil.copy(CONFIGURATION, dagster_home)
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    settings = load_settings()
    with closing(Registry.open(settings.registry)) as registry:
        registry.create("Stitch Customerio")
    land(settings.landing, SCHEMA, [event("a")])
    return tmp_path


def _materialize() -> str:
    """Run the command that any Dagster user would type; return what it printed."""
    command = str(Path(sys.executable).with_name("dagster"))
    done = subprocess.run(
        [
            *(command, "asset", "materialize", "-m", "customerio_pipeline.definitions"),
            *("--select", f"{SCHEMA}/data"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_materialization_is_kept_in_sqlite_by_default(home: Path) -> None:
    """The CLI's run is what the UI will show; it lies in the installation's folder."""
    printed = _materialize()

    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert instance.get_latest_materialization_event(data_key(SCHEMA)) is not None
        assert not instance.telemetry_enabled
    assert (home / "dagster" / "history").is_dir()
    assert "1 inserted" in printed


@pytest.mark.xdist_group("postgres")
def test_a_materialization_is_kept_in_postgresql_when_told_so(
    home: Path, monkeypatch: pytest.MonkeyPatch, postgres: str
) -> None:
    """A plain postgresql:// URL is enough; nothing goes to SQLite."""
    with fresh_database(postgres) as url:
        monkeypatch.setenv("CUSTOMERIO_DAGSTER_POSTGRES_URL", url)
        printed = _materialize()

        with psycopg.connect(url) as connection:
            runs = connection.execute("SELECT status FROM runs").fetchall()
            events = connection.execute(
                "SELECT count(*) FROM event_logs"
                " WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = %s",
                [f'["{SCHEMA}", "data"]'],
            ).fetchone()
    assert runs == [("SUCCESS",)]
    assert events == (1,)
    assert "1 inserted" in printed
    assert not (home / "dagster").exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_spelling_of_the_url_gets_the_driver_that_works(scheme: str) -> None:
    """dagster-postgres cannot use psycopg 3, which plain URLs may come to mean."""
    assert postgres_url(f"{scheme}://u:p@h/d") == "postgresql+psycopg2://u:p@h/d"


def test_another_database_is_refused_without_showing_the_url() -> None:
    """It may hold a password."""
    with pytest.raises(SettingsError, match="CUSTOMERIO_DAGSTER_POSTGRES_URL") as raised:
        postgres_url("mysql://u:secret@h/d")

    assert "secret" not in str(raised.value)


class TestPruning:
    """The nightly job that deletes old runs."""

    @pytest.fixture
    def instance(self, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
        """Yield an instance on SQLite files."""
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            yield instance

    def test_old_runs_go_and_the_latest_materialization_stays(
        self, instance: dg.DagsterInstance
    ) -> None:
        """A source that is idle for a month keeps what its page shows."""

        @dg.asset
        def table() -> None:
            """Stand for any table."""

        with freeze_time(datetime.now(UTC) - timedelta(days=40)):
            old = [dg.materialize([table], instance=instance).run_id for _ in range(3)]
        now = datetime.now(UTC)

        deleted = prune_runs(instance, dg.DagsterRunStatus.SUCCESS, now - timedelta(days=30))

        assert deleted == 2
        assert [run.run_id for run in instance.get_runs()] == old[2:]
        assert instance.get_latest_materialization_event(dg.AssetKey("table")) is not None
        new = dg.materialize([table], instance=instance).run_id
        assert prune_runs(instance, dg.DagsterRunStatus.SUCCESS, now - timedelta(days=30)) == 1
        assert [run.run_id for run in instance.get_runs()] == [new]

    def test_only_runs_of_the_status_go(self, instance: dg.DagsterInstance) -> None:
        """Failed runs are kept longer, and unfinished ones always."""

        @dg.op
        def step() -> None:
            """Do nothing."""

        @dg.job
        def job() -> None:
            step()

        with freeze_time(datetime.now(UTC) - timedelta(days=40)):
            failed = instance.create_run_for_job(job, status=dg.DagsterRunStatus.FAILURE)
            started = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)

        now = datetime.now(UTC)
        assert prune_runs(instance, dg.DagsterRunStatus.SUCCESS, now) == 0
        assert prune_runs(instance, dg.DagsterRunStatus.FAILURE, now) == 1
        assert instance.get_run_by_id(failed.run_id) is None
        assert instance.get_run_by_id(started.run_id) is not None

    @pytest.mark.usefixtures("home")
    def test_the_job_runs_every_night(self) -> None:
        """It belongs to the definitions and its schedule runs without being switched on."""
        loaded = defs()
        assert isinstance(loaded, dg.Definitions)
        schedule = loaded.resolve_schedule_def("prune_runs_schedule")
        job = loaded.resolve_job_def("prune_runs_job")

        assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
        assert schedule.job_name == job.name
        with dg.DagsterInstance.ephemeral() as instance:
            assert job.execute_in_process(instance=instance).success
