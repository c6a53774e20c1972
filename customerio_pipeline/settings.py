"""Settings of every part, read from environment variables with the prefix ``CUSTOMERIO_``."""

import json
import os
import re
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from customerio_pipeline.errors import SettingsError

# Customer.io takes webhook URLs of at most 255 characters (customerio-webhooks 2); the route and
# a token of 43 characters need 60 of them.
MAX_PUBLIC_URL_LENGTH = 190

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
MEBIBYTE = 1024 * 1024
DAY = 24 * 3600.0

Network = IPv4Network | IPv6Network


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ip_network(item.strip()) for item in value.split(","))


def _addresses(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(address for item in value.split(",") if (address := item.strip()))


Addresses = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_addresses)]

Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)]

# Stricter than the driver, which takes an @ in a password for the end of it.
_POSTGRES_HOST = r"(?:[^@/?:,\s\[\]]*|\[[0-9a-fA-F:.]+\])(?::\d+)?"
_POSTGRES_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^@/?\s]*@)?{_POSTGRES_HOST}(?:,{_POSTGRES_HOST})*"
    r"(?:/[^@?\s]*)?(?:\?\S*)?"
)


def _is_encrypted(value: str) -> bool:
    """Tell whether a URL is of HTTPS, or of this machine."""
    url = urlsplit(value)
    is_here = url.scheme == "http" and url.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(url.hostname) and (url.scheme == "https" or is_here)


class Settings(BaseSettings):
    """What is in force; ``customerio-pipeline config`` prints it with secrets masked."""

    model_config = SettingsConfigDict(
        env_prefix="CUSTOMERIO_",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        extra="ignore",
    )

    env_file: AbsolutePath | None = None
    """File with more of these variables, ``NAME=value`` lines; the environment itself prevails."""

    home: AbsolutePath = Field(default=Path("var"), validate_default=True)
    """Folder of all data of a local installation."""

    landing_folder: AbsolutePath | None = Field(default=None, alias="CUSTOMERIO_LANDING")
    """Folder of the landing files; ``<home>/landing`` when unset."""

    registry_url: SecretStr | None = Field(default=None, alias="CUSTOMERIO_REGISTRY")
    """``sqlite:///path`` or ``postgresql://…``; ``<home>/registry.sqlite`` when unset."""

    warehouse_url: SecretStr | None = Field(default=None, alias="CUSTOMERIO_WAREHOUSE")
    """``duckdb:///path`` or ``postgresql://…``; a DuckDB file under `home` when unset."""

    landing_retention_days: Annotated[int, Field(ge=1)] | None = None
    """Days after which landing files that are loaded are removed; never when ``off``."""

    public_url: str = Field(default="http://127.0.0.1:8080", max_length=MAX_PUBLIC_URL_LENGTH)
    """What Customer.io calls: scheme, host and, if any, port and path prefix."""

    max_body_bytes: int = Field(default=32 * MEBIBYTE, ge=1024)
    """Longest request body taken; longer ones get 413."""

    spool_max_bytes: int = Field(default=2048 * MEBIBYTE, ge=MEBIBYTE)
    """Bytes that may wait for sealing before deliveries get 503."""

    spool_min_free_bytes: int = Field(default=256 * MEBIBYTE, ge=0)
    """Free bytes on the spool's disk below which deliveries get 503."""

    segment_max_bytes: int = Field(default=64 * MEBIBYTE, ge=1024)
    """Size at which a spool segment is closed and sealed at once."""

    seal_after_seconds: float = Field(default=1.0, gt=0, le=3600)
    """Age at which a spool segment that holds events is closed and sealed."""

    queue_max_bytes: int = Field(default=64 * MEBIBYTE, ge=1024)
    """Bytes of bodies that may wait for a sync, per worker, before deliveries get 503."""

    queue_max_seconds: float = Field(default=3.0, gt=0, lt=4)
    """Wait for a sync after which deliveries get 503; Customer.io gives up at 4 s."""

    receive_max_bytes: int = Field(default=128 * MEBIBYTE, ge=1024)
    """Bytes of bodies that may be arriving, per worker, before large ones get 503."""

    request_seconds: float = Field(default=10.0, gt=0)
    """Time in which a request must have arrived; later it gets 408."""

    max_connections: int = Field(default=4096, ge=1)
    """Connections a worker keeps open; a new one then takes the place of an idle one."""

    drain_seconds: float = Field(default=8.0, gt=0)
    """Time that a stopping receiver or worker gives the requests in flight."""

    signature_tolerance_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time between signing and receipt beyond which a signature is stale; any when ``off``."""

    held_max_deliveries: int = Field(default=100_000, ge=0)
    """Deliveries that no key signed, kept per integration; further ones get 401."""

    held_max_bytes: int = Field(default=256 * MEBIBYTE, ge=0)
    """Bytes of the bodies of those."""

    allow_networks: Networks = ()
    """Networks that may send, separated by commas; others get 403. All may when unset."""

    trusted_proxies: Networks = ()
    """Networks of proxies whose ``X-Forwarded-For`` names the client, separated by commas."""

    tls_certificate: AbsolutePath | None = None
    """File of the certificate and its chain (PEM); plain HTTP when unset."""

    tls_key: AbsolutePath | None = None
    """File of the certificate's private key (PEM, no password)."""

    access_log: bool = True
    """Whether the receiver logs one line a request."""

    admin_host: str = "127.0.0.1"
    """Where the management page, metrics and the health of all workers are served."""

    admin_port: Annotated[int, Field(ge=0, le=65535)] | None = 8081
    """Port of it; 0 takes any free one, ``off`` serves none of them."""

    admin_password: SecretStr | None = Field(default=None, min_length=10)
    """Password of the management page; one is made at the first start when unset."""

    warehouse_wait_seconds: float = Field(default=30.0, ge=0)
    """How long a load waits for a warehouse that another process holds."""

    max_columns: int = Field(default=1000, ge=20, le=1500)
    """Columns of `data` above which values without one go to `_sdc_overflow`."""

    duckdb_publish_seconds: float = Field(default=60.0, ge=0)
    """Least time between two read copies of a DuckDB warehouse; 0 makes none."""

    load_idle_seconds: float = Field(default=30.0, ge=0)
    """Quiet time after which a drain run of the sensor ends."""

    load_max_seconds: float = Field(default=900.0, gt=0)
    """Time after which a drain run of the sensor ends and another may start."""

    freshness_warn_seconds: float = Field(default=3 * DAY, ge=60)
    """Time without a load after which Dagster's freshness policy of `data` warns."""

    freshness_fail_seconds: float = Field(default=7 * DAY, ge=60)
    """Time without a load after which it fails."""

    lag_warn_seconds: float = Field(default=60.0, gt=0)
    """Time from receipt to row above which the check `loaded_soon` warns."""

    lag_fail_seconds: float = Field(default=900.0, gt=0)
    """Time from receipt to row above which it is an error."""

    app_api_url: str | None = None
    """Customer.io's App API, for `integrations connect`; that of the region when unset."""

    import_url: SecretStr | None = None
    """PostgreSQL that `import --from-table` reads a table of: ``postgresql://…``."""

    smtp_url: SecretStr | None = None
    """Mail server for alerts: ``smtp://user:password@host:587``, or ``smtps://…``."""

    alert_email_to: Addresses = ()
    """Addresses that get alerts, separated by commas."""

    alert_email_from: str | None = None
    """Sender of alerts; the first of those addresses when unset."""

    alert_slack_url: SecretStr | None = None
    """Incoming webhook of Slack, or of a program that takes the same, for alerts."""

    alert_webhook_url: SecretStr | None = None
    """Webhook that gets alerts as JSON."""

    post_load_url: SecretStr | None = None
    """Webhook that is told what was loaded, as Stitch's post-load webhook is."""

    post_load_key: SecretStr | None = None
    """Key that those calls are signed with; they are not signed when unset."""

    alert_after_seconds: float = Field(default=60.0, ge=0)
    """How long trouble lasts before people are told."""

    dagster_url: str = "http://127.0.0.1:3000"
    """Where the command line asks Dagster's webserver to reload new integrations."""

    dagster_postgres_url: SecretStr | None = None
    """PostgreSQL for Dagster's own storage; SQLite under ``<home>/dagster`` when unset."""

    @field_validator(
        "admin_port", "landing_retention_days", "signature_tolerance_seconds", mode="before"
    )
    @classmethod
    def _off(cls, value: object) -> object:
        return None if value == "off" else value

    @field_validator("public_url", "dagster_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("app_api_url")
    @classmethod
    def _encrypted(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not _is_encrypted(value) or "@" in urlsplit(value).netloc:
            raise ValueError("must start with https://, and hold no password")
        return value.rstrip("/")

    @field_validator("alert_slack_url", "alert_webhook_url", "post_load_url")
    @classmethod
    def _encrypted_webhook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_encrypted(value.get_secret_value()):
            raise ValueError("must start with https://, or be of this machine")
        return value

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            url = urlsplit(value.get_secret_value())
            if url.scheme not in ("smtp", "smtps") or not url.hostname:
                raise ValueError(
                    "must be smtp://user:password@host:587 or smtps://… with special characters"
                    " percent-encoded"
                )
        return value

    @field_validator("alert_email_to")
    @classmethod
    def _mail_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(re.fullmatch(r"[^@\s]+@[^@\s]+", address) for address in value):
            raise ValueError("must be addresses such as ops@example.com, separated by commas")
        return value

    @field_validator("warehouse_url")
    @classmethod
    def _known_warehouse(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        url = value.get_secret_value()
        if not url.startswith("duckdb:///") and not _POSTGRES_URL.fullmatch(url):
            raise ValueError(
                "must be duckdb:///path or postgresql://user:password@host:port/database with"
                " special characters percent-encoded"
            )
        return value

    @field_validator("registry_url")
    @classmethod
    def _known_registry(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(
            ("sqlite:///", "postgresql://")
        ):
            raise ValueError("must be sqlite:///path or postgresql://…")
        return value

    @model_validator(mode="after")
    def _whole_mail(self) -> Self:
        if (self.smtp_url is None) != (not self.alert_email_to):
            raise ValueError(
                "CUSTOMERIO_SMTP_URL and CUSTOMERIO_ALERT_EMAIL_TO must be set together"
            )
        return self

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError(
                "CUSTOMERIO_TLS_CERTIFICATE and CUSTOMERIO_TLS_KEY must be set together"
            )
        return self

    @model_validator(mode="after")
    def _warns_before_failing(self) -> Self:
        for name in ("freshness", "lag"):
            if getattr(self, f"{name}_warn_seconds") >= getattr(self, f"{name}_fail_seconds"):
                setting = f"CUSTOMERIO_{name.upper()}"
                raise ValueError(f"{setting}_WARN_SECONDS must be less than {setting}_FAIL_SECONDS")
        return self

    @property
    def addresses_file(self) -> Path:
        """Where `customerio-pipeline up` says, while it runs, under which addresses."""
        return self.home / "addresses.json"

    @property
    def spool(self) -> Path:
        """Folder of the receiver's spool."""
        return self.home / "spool"

    @property
    def landing(self) -> Path:
        """Folder of the landing files."""
        return self.landing_folder or self.home / "landing"

    @property
    def dagster_storage(self) -> Path:
        """Folder of Dagster's own SQLite storage."""
        return self.home / "dagster"

    @cached_property
    def registry(self) -> str:
        """SQLAlchemy-style URL of the registry; may hold a password."""
        if self.registry_url is not None:
            return self.registry_url.get_secret_value()
        return f"sqlite:///{self.home / 'registry.sqlite'}"

    @cached_property
    def warehouse(self) -> str:
        """URL of the warehouse; may hold a password."""
        if self.warehouse_url is not None:
            return self.warehouse_url.get_secret_value()
        return f"duckdb:///{self.home / 'warehouse' / 'customerio.duckdb'}"

    @property
    def warehouse_kind(self) -> Literal["duckdb", "postgres"]:
        """What the warehouse is, as Dagster names it."""
        return "postgres" if self.warehouse.startswith("postgres") else "duckdb"


def load_settings() -> Settings:
    """Read the settings; addresses that no variable sets are those of a running installation.

    Raises:
        SettingsError: naming the variable at fault, never its value.
    """
    settings = environment_settings()
    try:
        addresses = json.loads(settings.addresses_file.read_bytes())
    except (OSError, ValueError):
        return settings
    unset = addresses.keys() - settings.model_fields_set
    return settings.model_copy(update={name: addresses[name] for name in unset})


def environment_settings() -> Settings:
    """Read the settings from the environment, and the file that it names.

    Raises:
        SettingsError: naming the variable at fault, never its value.
    """
    env_file = os.environ.get("CUSTOMERIO_ENV_FILE") or None
    try:
        if env_file is not None:
            # It would be ignored silently.
            Path(env_file).read_text("utf-8")
        return Settings(_env_file=env_file)  # type: ignore[call-arg]  # of BaseSettings
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"CUSTOMERIO_ENV_FILE cannot be read: {reason}.") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        if not first["loc"]:
            raise SettingsError(f"{first['ctx']['error']}.") from None
        name = str(first["loc"][0])
        variable = name if name.startswith("CUSTOMERIO_") else f"CUSTOMERIO_{name.upper()}"
        raise SettingsError(f"{variable} is wrong: {first['msg']}.") from None
