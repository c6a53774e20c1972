"""What the handlers of page and API work with, each opened when it is first needed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from customerio_pipeline.management.attempts import Attempts
from customerio_pipeline.management.passwords import adopt_password
from customerio_pipeline.registry.registry import Registry
from customerio_pipeline.settings import Settings

if TYPE_CHECKING:
    from customerio_pipeline.loading.target import Reader
    from customerio_pipeline.verifying.activity import Activity


class Services:
    """One set of them for the process; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.attempts = Attempts()
        self.token_attempts = Attempts()
        self._lock = threading.Lock()
        self._registry: Registry | None = None
        self._activities: dict[str, Activity] = {}

    @property
    def registry(self) -> Registry:
        """The registry; not opened before, since metrics are served without it, too.

        Raises:
            RegistryUnavailableError: it cannot be opened now.
        """
        with self._lock:
            if self._registry is None:
                registry = Registry.open(self.settings.registry)
                try:
                    adopt_password(self.settings, registry.admin)
                except BaseException:
                    registry.close()
                    raise
                self._registry = registry
            return self._registry

    @contextmanager
    def reading(self) -> Iterator["Reader"]:
        """Open the warehouse to read from it, briefly."""
        # Of weight, and metrics are served without it.
        from customerio_pipeline.warehouse import open_for_reading

        reader = open_for_reading(self.settings)
        try:
            yield reader
        finally:
            reader.close()

    def activity(self, schema: str) -> "Activity":
        """Return what is counted of the deliveries of an integration."""
        from customerio_pipeline.verifying.activity import Activity

        with self._lock:
            if schema not in self._activities:
                self._activities[schema] = Activity(self.settings.landing, schema)
            return self._activities[schema]

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            if self._registry is not None:
                self._registry.close()
                self._registry = None
