"""What Dagster finds: definitions built from the registry, and the request to reload them."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from customerio_pipeline.definitions import defs
from customerio_pipeline.errors import RegistryUnavailableError, SettingsError
from customerio_pipeline.orchestration.reload import reload_definitions
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import load_settings

PROJECT = Path(__file__).parent.parent
_DAGSTER = str(Path(sys.executable).with_name("dagster"))
KEYS = [dg.AssetKey(["stitch_customerio", part]) for part in ("landing", "data", "_sdc_rejected")]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty installation."""
    monkeypatch.setenv("CUSTOMERIO_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def registry(home: Path) -> Iterator[Registry]:
    """Yield the installation's registry, with the integration of the README."""
    with closing(Registry.open(load_settings().registry)) as registry:
        registry.create("Stitch Customerio")
        yield registry


def _definitions() -> dg.Definitions:
    """Load the definitions as Dagster does."""
    loaded = defs()
    assert isinstance(loaded, dg.Definitions)
    dg.Definitions.validate_loadable(loaded)
    return loaded


class TestDefinitions:
    """What each integration consists of."""

    def test_without_a_registry_there_are_no_integrations(self, home: Path) -> None:
        """Looking at an empty installation is no error and creates nothing."""
        loaded = _definitions()

        assert not list(loaded.resolve_all_asset_specs())
        assert not list(home.iterdir())

    @pytest.mark.usefixtures("registry")
    def test_an_integration_has_its_assets_in_a_group(self) -> None:
        """Landing comes from outside; both tables are made from it, the views from data."""
        specs = {spec.key: spec for spec in _definitions().resolve_all_asset_specs()}
        landing, data, rejected = (specs[key] for key in KEYS)

        views = {key: spec for key, spec in specs.items() if "view" in spec.kinds}

        assert set(specs) == {*KEYS, *views}
        assert {key.path[1] for key in views} == {"events", "deliveries", "campaign_daily"}
        for spec in specs.values():
            assert spec.group_name == "stitch_customerio"
            assert spec.owners == ["team:data"]
            assert spec.description
        assert landing.kinds == {"parquet", "customerio"}
        assert data.kinds == rejected.kinds == {"duckdb", "table"}
        assert isinstance(landing.partitions_def, dg.DailyPartitionsDefinition)
        for table in (data, rejected):
            assert [dep.asset_key for dep in table.deps] == [landing.key]
            assert table.code_version
        for view in views.values():
            assert [dep.asset_key for dep in view.deps] == [data.key]
            assert view.kinds == {"duckdb", "view"}
            assert all(
                column.description for column in view.metadata["dagster/column_schema"].columns
            )
        assert data.metadata["dagster/table_name"] == "stitch_customerio.data"
        assert data.metadata["dagster/storage_kind"] == "duckdb"
        assert data.freshness_policy == dg.FreshnessPolicy.time_window(
            warn_window=timedelta(days=3), fail_window=timedelta(days=7)
        )

    @pytest.mark.usefixtures("registry")
    def test_freshness_has_the_windows_of_the_settings(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Busy sources have shorter ones; one that warns too late is refused with a sentence."""
        monkeypatch.setenv("CUSTOMERIO_FRESHNESS_WARN_SECONDS", "3600")
        monkeypatch.setenv("CUSTOMERIO_FRESHNESS_FAIL_SECONDS", "10800")
        specs = {spec.key: spec for spec in _definitions().resolve_all_asset_specs()}
        assert specs[KEYS[1]].freshness_policy == dg.FreshnessPolicy.time_window(
            warn_window=timedelta(hours=1), fail_window=timedelta(hours=3)
        )
        monkeypatch.setenv("CUSTOMERIO_FRESHNESS_FAIL_SECONDS", "3600")
        with pytest.raises(SettingsError) as refused:
            load_settings()
        assert str(refused.value) == (
            "CUSTOMERIO_FRESHNESS_WARN_SECONDS must be less than CUSTOMERIO_FRESHNESS_FAIL_SECONDS."
        )

    def test_landing_partitions_reach_from_creation_to_today(self, registry: Registry) -> None:
        """A file landed now has a partition."""
        created = registry.find("stitch_customerio").created_at
        specs = {spec.key: spec for spec in _definitions().resolve_all_asset_specs()}
        partitions = specs[KEYS[0]].partitions_def
        assert partitions is not None

        assert created.strftime("%Y-%m-%d") in partitions.get_partition_keys()

    def test_an_integration_has_a_sensor_that_runs_by_itself(self, registry: Registry) -> None:
        """Nobody has to switch anything on; a paused one keeps its sensor, which then waits."""
        registry.pause(registry.find("stitch_customerio"))
        loaded = _definitions()

        sensor = loaded.resolve_sensor_def("stitch_customerio_sensor")
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        # 5 s would tick every 10 s.
        assert sensor.minimum_interval_seconds == 2
        assert loaded.resolve_job_def("stitch_customerio_load").tags == {
            "customerio/schema": "stitch_customerio"
        }

    def test_deleted_integrations_are_gone(self, registry: Registry) -> None:
        """Others stay."""
        registry.create("Second")
        registry.delete(registry.find("Stitch Customerio"))

        groups = {spec.group_name for spec in _definitions().resolve_all_asset_specs()}

        assert groups == {"second"}

    def test_an_unreachable_registry_is_one_clear_sentence(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is shown in Dagster's UI as the reason why the location cannot be loaded."""
        url = "postgresql://someone:secret@127.0.0.1:9/registry"
        monkeypatch.setenv("CUSTOMERIO_REGISTRY", url)

        with pytest.raises(RegistryUnavailableError, match="registry") as raised:
            defs()

        assert "secret" not in str(raised.value)

    @pytest.mark.usefixtures("registry")
    def test_dagster_validates_the_workspace(self) -> None:
        """`dagster definitions validate -w workspace.yaml`, as typed by a Dagster user."""
        done = subprocess.run(
            [_DAGSTER, "definitions", "validate", "--workspace=workspace.yaml"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr
        assert "customerio_pipeline" in done.stdout + done.stderr


class TestReload:
    """Asking a running webserver for a reload."""

    def test_the_location_is_reloaded_by_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The request is the one that Dagster's own Reload button sends."""
        answer = {"data": {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry"}}}
        with _webserver(answer) as (url, requests):
            monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", url)
            told = reload_definitions(load_settings())

        assert told
        assert [request["variables"] for request in requests] == [
            {"location": "customerio_pipeline"}
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            {"data": {"reloadRepositoryLocation": {"__typename": "RepositoryLocationNotFound"}}},
            {"errors": [{"message": "no"}], "data": None},
            ["not", "Dagster"],
        ],
    )
    def test_any_other_answer_is_no_reload(
        self, answer: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Something else may listen there, or a Dagster that does not know the location."""
        with _webserver(answer) as (url, _):
            monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", url)

            assert not reload_definitions(load_settings())

    def test_nobody_listening_is_no_reload(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Integrations can be made while Dagster is down."""
        monkeypatch.setenv("CUSTOMERIO_DAGSTER_URL", "http://127.0.0.1:9")

        assert not reload_definitions(load_settings())

    def test_it_does_not_import_dagster(self) -> None:
        """The command line would start a second later."""
        code = (
            "import sys, customerio_pipeline.orchestration.reload;"
            " sys.exit('dagster' in sys.modules)"
        )

        subprocess.run([sys.executable, "-c", code], check=True)


@contextmanager
def _webserver(answer: object) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answer every request with `answer`; yield the URL and the requests that came."""
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()
