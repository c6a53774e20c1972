"""An installation of a benchmark's own: a folder, default settings, one integration."""

import os
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings

_OURS = ("CUSTOMERIO_", "DAGSTER_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """Where everything is, and the token of the integration's webhook URL."""

    settings: Settings
    schema: str
    token: str = field(repr=False)

    @classmethod
    def create(cls, home: Path, signing_key: str | None = None) -> Self:
        """Make the folder and the integration; with a key, signatures are checked."""
        home.mkdir()
        settings = Settings(home=home)
        with closing(Registry.open(settings.registry)) as registry:
            integration, url = registry.create("Benchmark")
            if signing_key is not None:
                registry.keys.add(integration, signing_key)
        return cls(settings=settings, schema=integration.schema, token=url.token)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes need in theirs."""
        return {
            **os.environ,
            "CUSTOMERIO_HOME": str(self.settings.home),
            # Any free one: several installations run side by side.
            "CUSTOMERIO_ADMIN_PORT": "0",
        }

    @property
    def path(self) -> str:
        """Path of the webhook URL."""
        return f"/v1/webhooks/{self.token}"


def forget_settings() -> None:
    """Take the caller's settings out of the environment: the defaults are measured."""
    for name in [name for name in os.environ if name.startswith(_OURS)]:
        del os.environ[name]
