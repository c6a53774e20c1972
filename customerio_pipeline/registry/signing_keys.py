"""Signing keys of integrations, and what becomes of deliveries that none of them signed."""

import time
from collections import defaultdict
from datetime import UTC, datetime

import sqlalchemy as sa

from customerio_pipeline.errors import KeyConflictError, RegistryError, UnknownKeyError
from customerio_pipeline.registry.database import Database
from customerio_pipeline.registry.records import (
    Integration,
    LiveKey,
    SignatureMode,
    SignaturePolicy,
    SigningKey,
)
from customerio_pipeline.registry.steps import begin_change, find_by_id
from customerio_pipeline.registry.tables import integrations, signing_keys
from customerio_pipeline.registry.tokens import new_key_id

MAX_LIVE_KEYS = 8
"""Each costs every delivery that the ones before it did not sign a few microseconds."""

MAX_KEY_LENGTH = 512


class SigningKeys:
    """Every method raises `RegistryUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, integration: Integration, secret: str) -> SigningKey:
        """Check signatures with a further key, in every receiver within a second.

        Args:
            integration: whose deliveries it signs.
            secret: the key as Customer.io shows it; white space around it does not count.

        Raises:
            KeyConflictError: it is one already, or there are too many.
            RegistryError: it cannot be a key.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        secret = _checked(secret)
        now = datetime.now(UTC)
        with self._database.changing() as connection:
            _begin_change(connection, integration)
            live = live_keys(connection, integration).get(integration.id, ())
            for key in live:
                if key.secret == secret:
                    raise KeyConflictError(
                        f'"{integration.name}" has this signing key already: {key.id}.'
                    )
            if len(live) >= MAX_LIVE_KEYS:
                raise KeyConflictError(
                    f'"{integration.name}" has {len(live)} signing keys: remove one first with'
                    f" `customerio-pipeline keys remove {integration.schema} KEY_ID`."
                )
            key_id = new_key_id()
            connection.execute(
                signing_keys.insert().values(
                    id=key_id, integration_id=integration.id, secret=secret, added_at=now
                )
            )
        return SigningKey(key_id, now, None)

    def list(self, integration: Integration) -> list[SigningKey]:
        """Return every key that the integration ever had, oldest first."""
        columns = (signing_keys.c.id, signing_keys.c.added_at, signing_keys.c.removed_at)
        statement = (
            sa.select(*columns)
            .where(signing_keys.c.integration_id == integration.id)
            .order_by(signing_keys.c.added_at, signing_keys.c.id)
        )
        with self._database.reading() as connection:
            return [SigningKey(*row) for row in connection.execute(statement)]

    def remove(self, integration: Integration, key_id: str) -> None:
        """Check with the key no more, and forget it; its id stays known.

        Raises:
            UnknownKeyError: the integration has no such key.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            _begin_change(connection, integration)
            live = live_keys(connection, integration).get(integration.id, ())
            if key_id not in {key.id for key in live}:
                raise UnknownKeyError(
                    f'"{integration.name}" has no signing key "{key_id}":'
                    f" `customerio-pipeline keys list {integration.schema}` shows its keys."
                )
            connection.execute(
                signing_keys.update()
                .where(signing_keys.c.id == key_id)
                .values(secret=None, removed_at=datetime.now(UTC))
            )

    def set_mode(self, integration: Integration, mode: SignatureMode) -> None:
        """Choose what becomes of deliveries that no key signed.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            _begin_change(connection, integration)
            connection.execute(_update(integration).values(signatures=mode))

    def policy(self, integration: Integration) -> SignaturePolicy:
        """Return how signatures are checked now, with the keys themselves.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.reading() as connection:
            find_by_id(connection, integration.id)
            row = connection.execute(
                sa.select(integrations.c.signatures, integrations.c.signatures_epoch).where(
                    integrations.c.id == integration.id
                )
            ).one()
            keys = live_keys(connection, integration).get(integration.id, ())
        return SignaturePolicy(SignatureMode(row.signatures), keys, row.signatures_epoch)

    def begin_epoch(self, integration: Integration) -> None:
        """Let receivers count anew how much they hold: somebody has looked at it.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            _begin_change(connection, integration)


def live_keys(
    connection: sa.Connection, integration: Integration | None = None
) -> dict[int, tuple[LiveKey, ...]]:
    """Return the keys to check with, newest first, by the id of the integration; or those of one.

    The newest first, as it signs what comes from now on.
    """
    statement = (
        sa.select(signing_keys.c.integration_id, signing_keys.c.id, signing_keys.c.secret)
        .where(signing_keys.c.removed_at.is_(None))
        .order_by(signing_keys.c.added_at.desc(), signing_keys.c.id)
    )
    if integration is not None:
        statement = statement.where(signing_keys.c.integration_id == integration.id)
    found: defaultdict[int, list[LiveKey]] = defaultdict(list)
    for integration_id, key_id, secret in connection.execute(statement):
        found[integration_id].append(LiveKey(key_id, secret))
    return {integration_id: tuple(keys) for integration_id, keys in found.items()}


def forget_keys(connection: sa.Connection, integration: Integration) -> None:
    """Remove every key of an integration."""
    connection.execute(
        signing_keys.update()
        .where(signing_keys.c.integration_id == integration.id, signing_keys.c.removed_at.is_(None))
        .values(secret=None, removed_at=datetime.now(UTC))
    )


def _begin_change(connection: sa.Connection, integration: Integration) -> None:
    begin_change(connection)
    find_by_id(connection, integration.id)
    connection.execute(_update(integration).values(signatures_epoch=time.time_ns()))


def _update(integration: Integration) -> sa.Update:
    return integrations.update().where(integrations.c.id == integration.id)


def _checked(secret: str) -> str:
    secret = secret.strip()
    if not secret:
        raise RegistryError(
            "The signing key is empty: copy it from the webhook's page in Customer.io."
        )
    if len(secret) > MAX_KEY_LENGTH:
        raise RegistryError(
            f"The signing key has {len(secret)} characters: at most {MAX_KEY_LENGTH} are allowed."
        )
    if not secret.isprintable() or any(character.isspace() for character in secret):
        raise RegistryError(
            "The signing key holds white space or a control character: copy the key alone."
        )
    return secret
