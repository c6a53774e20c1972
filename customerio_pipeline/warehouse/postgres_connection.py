"""Connecting to PostgreSQL, and one sentence for whatever stands in the way."""

from collections.abc import Mapping
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from customerio_pipeline.errors import WarehouseUnavailableError

Connection = psycopg.Connection[tuple[object, ...]]

_OLDEST_VERSION = 13
_MALFORMED = (
    " is malformed: it must be postgresql://user:password@host:port/database,"
    " special characters in user and password percent-encoded."
)

# A server that vanished is noticed in seconds, not in the kernel's quarter of an hour.
_PATIENCE: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

# The same from the server's side, so that a loader's locks do not outlive its machine; and no
# compilation, which takes longer than it saves where a statement has hundreds of columns. Not as
# connection options: poolers refuse those.
_SETTINGS = (
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET jit = off;"
    " SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
)


class PostgresServer:
    """Where the warehouse is, and how to get there; knows the password and never tells it."""

    def __init__(self, url: str, setting: str = "CUSTOMERIO_WAREHOUSE") -> None:
        """Read the URL, which `setting` gives; nothing is connected yet.

        Raises:
            WarehouseUnavailableError: it is malformed.
        """
        try:
            given = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            given = {"host": "@"}
        # An @ in a password that is not written as %40 ends up in the host, and would be shown.
        if "@" in str(given.get("host", "")):
            # `from None`, here and below: a driver's error may carry what it was given.
            raise WarehouseUnavailableError(setting + _MALFORMED) from None
        self._parameters = {
            **_PATIENCE,
            "application_name": "customerio-pipeline",
            **given,
            "client_encoding": "UTF8",
        }
        self.shown = _shown(given)

    def connect(self) -> Connection:
        """Return a new connection in autocommit mode.

        Raises:
            WarehouseUnavailableError: it cannot be reached or is none that we can use.
        """
        try:
            connection: Connection = psycopg.connect(
                **self._parameters,  # type: ignore[arg-type]  # libpq's own names
                autocommit=True,
                # Poolers may hand statements of one connection to several sessions.
                prepare_threshold=None,
            )
        except psycopg.Error as error:
            raise WarehouseUnavailableError(
                f"The warehouse {self.shown} cannot be reached: {self._reason(error)}."
            ) from None
        try:
            self._check(connection)
            connection.execute(_SETTINGS)
        except psycopg.Error as error:
            connection.close()
            raise WarehouseUnavailableError(
                f"The warehouse {self.shown} cannot be used: {self._reason(error)}."
            ) from None
        except WarehouseUnavailableError:
            connection.close()
            raise
        return connection

    def _check(self, connection: Connection) -> None:
        version = connection.info.server_version // 10_000
        if version < _OLDEST_VERSION:
            raise WarehouseUnavailableError(
                f"The warehouse {self.shown} is PostgreSQL {version}: {_OLDEST_VERSION} or later is"
                " needed."
            )
        encoding = connection.info.parameter_status("server_encoding")
        if encoding not in (None, "UTF8"):
            raise WarehouseUnavailableError(
                f"The warehouse {self.shown} is encoded in {encoding}, which cannot hold every"
                " text: create a database with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE"
                " template0."
            )

    def _reason(self, error: psycopg.Error) -> str:
        """Return the driver's first line without its preamble, nor the password."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # Of several addresses the last is told, on a line of its own.
        line = next((each for each in reversed(lines) if " failed: " in each), lines[0])
        reason = line.rpartition(" failed: ")[2].removeprefix("FATAL:").strip().rstrip(".")
        for secret in (self._parameters.get("password"), self._parameters.get("sslpassword")):
            if secret:
                reason = reason.replace(str(secret), "***").replace(quote(str(secret)), "***")
        return reason


def _shown(given: Mapping[str, object]) -> str:
    """Return the address without user, password and options."""
    hosts = str(given.get("host") or given.get("hostaddr") or "localhost").split(",")
    ports = str(given.get("port") or "").split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)]
    return f"postgresql://{','.join(places)}/{given.get('dbname') or ''}"
