"""Where Dagster keeps its own runs and events: SQLite, or PostgreSQL when a variable says so.

``dagster.yaml`` cannot choose its storage by an environment variable, a class can. It is read by
every Dagster process, so the URL with its password stays in the environment and appears neither
in the configuration nor on a command line.
"""

from typing import Any, Self

from dagster._core.storage.base_storage import DagsterStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from customerio_pipeline.errors import SettingsError
from customerio_pipeline.settings import Settings, load_settings

_DRIVER = "postgresql+psycopg2"
_SCHEMES = ("postgres://", "postgresql://", "postgresql+psycopg2://")


class EnvStorage(DagsterStorage, ConfigurableClass):
    """Named in ``dagster.yaml``; stands for one of Dagster's two storages."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Take nothing: the settings decide."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: object,  # noqa: ARG003  Dagster's signature
    ) -> Self:
        """Open the storage that the settings name."""
        return _open(load_settings(), inst_data)  # type: ignore[return-value]


def postgres_url(url: str) -> str:
    """Return the URL with the one driver that dagster-postgres works with named in it.

    A plain ``postgresql://`` means psycopg 3 to newer releases of SQLAlchemy, which fails at
    dagster-postgres' first NOTIFY.

    Raises:
        SettingsError: it is no PostgreSQL URL.
    """
    for scheme in _SCHEMES:
        if url.startswith(scheme):
            return f"{_DRIVER}://{url.removeprefix(scheme)}"
    raise SettingsError("CUSTOMERIO_DAGSTER_POSTGRES_URL is wrong: must be postgresql://…")


def _open(settings: Settings, inst_data: ConfigurableClassData | None) -> DagsterStorage[Any]:
    if settings.dagster_postgres_url is None:
        return DagsterSqliteStorage.from_local(str(settings.dagster_storage), inst_data)
    # A second to import, which installations on SQLite need not pay.
    from dagster_postgres import DagsterPostgresStorage

    url = postgres_url(settings.dagster_postgres_url.get_secret_value())
    return DagsterPostgresStorage(url, inst_data=inst_data)
