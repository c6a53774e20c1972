"""What can be done with integrations and their webhook URLs."""

from datetime import UTC, datetime, timedelta
from typing import Self

import sqlalchemy as sa

from customerio_pipeline.errors import RegistryError, UnknownIntegrationError, UnknownUrlError
from customerio_pipeline.registry.admin_access import AdminAccess
from customerio_pipeline.registry.api_tokens import ApiTokens
from customerio_pipeline.registry.database import Database
from customerio_pipeline.registry.display_names import check_name, name_key
from customerio_pipeline.registry.field_rules import FieldRules
from customerio_pipeline.registry.records import (
    Arrays,
    Integration,
    IntegrationState,
    LiveUrl,
    NewUrl,
    RegistrySnapshot,
    SignatureMode,
    SignaturePolicy,
    WebhookUrl,
)
from customerio_pipeline.registry.schema_names import check_schema, derive_schema
from customerio_pipeline.registry.signing_keys import SigningKeys, forget_keys, live_keys
from customerio_pipeline.registry.steps import (
    INTEGRATION,
    NO_TEST,
    NOT_DELETED,
    add_url,
    begin_change,
    check_name_is_free,
    check_schema_is_free,
    find_by_id,
    is_live_url_of,
    to_integration,
    update,
)
from customerio_pipeline.registry.tables import integrations, registry_state, webhook_urls
from customerio_pipeline.registry.tokens import hash_token

_LONGEST_TEST = timedelta(minutes=2)
"""After that, whoever sent a test event has given up."""

_GENERATION = sa.select(registry_state.c.generation)
# One statement, so that the generation and the URLs belong together in every database.
_SNAPSHOT = sa.select(
    registry_state.c.generation,
    webhook_urls.c.token_hash,
    webhook_urls.c.id,
    integrations.c.schema,
    integrations.c.id.label("integration_id"),
    integrations.c.signatures,
    integrations.c.signatures_epoch,
).select_from(
    registry_state.outerjoin(
        webhook_urls.join(integrations, webhook_urls.c.integration_id == integrations.c.id),
        webhook_urls.c.revoked_at.is_(None) & NOT_DELETED,
    )
)


class Registry:
    """Integrations and their URLs; safe to use from several threads and processes at once.

    Open it after a fork, not before. Every method raises `RegistryUnavailableError` when the
    database cannot be reached or used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.admin = AdminAccess(database)
        self.api_tokens = ApiTokens(database)
        self.keys = SigningKeys(database)
        self.field_rules = FieldRules(database)

    @classmethod
    def open(cls, url: str) -> Self:
        """Open the registry at ``sqlite:///path`` or ``postgresql://…``, creating its tables.

        Raises:
            RegistryUnavailableError: it cannot be opened; the sentence holds no password.
        """
        return cls(Database.open(url))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def create(
        self,
        name: str,
        schema: str | None = None,
        *,
        reuse_schema: bool = False,
        arrays: Arrays = Arrays.JSON,
    ) -> tuple[Integration, NewUrl]:
        """Create an integration and its first URL; the token is never to be had again.

        Args:
            name: display name.
            schema: derived from the name when None (stitch-loading 2.1).
            reuse_schema: take the schema of a deleted integration, whose tables are continued.
            arrays: where the arrays of events go.

        Raises:
            IntegrationExistsError: the name or schema is taken.
            RegistryError: the name or schema is not allowed.
        """
        name = check_name(name)
        schema = derive_schema(name) if schema is None else check_schema(schema)
        with self._database.changing() as connection:
            begin_change(connection)
            check_name_is_free(connection, name)
            check_schema_is_free(connection, schema, reuse_schema=reuse_schema)
            statement = integrations.insert().values(
                name=name,
                name_key=name_key(name),
                schema=schema,
                state=IntegrationState.ACTIVE,
                created_at=datetime.now(UTC),
                arrays=arrays,
            )
            created = connection.execute(statement.returning(*INTEGRATION.selected_columns))
            integration = to_integration(created.one())
            return integration, add_url(connection, integration)

    def check_is_free(self, name: str, schema: str, *, reuse_schema: bool = False) -> None:
        """Check that an integration could be created so now; another may be faster.

        Raises:
            IntegrationExistsError: the name or schema is taken.
        """
        with self._database.reading() as connection:
            check_name_is_free(connection, name)
            check_schema_is_free(connection, schema, reuse_schema=reuse_schema)

    def integrations(self) -> list[Integration]:
        """Return all that are not deleted, by name."""
        statement = INTEGRATION.where(NOT_DELETED).order_by(integrations.c.name_key)
        with self._database.reading() as connection:
            return [to_integration(row) for row in connection.execute(statement)]

    def find(self, name_or_schema: str) -> Integration:
        """Return the integration of this display name, in whatever case, or schema.

        Raises:
            UnknownIntegrationError: there is none.
            RegistryError: it is the name of one and the schema of another, or cannot be either.
        """
        wanted = check_name(name_or_schema)
        statement = INTEGRATION.where(
            NOT_DELETED,
            (integrations.c.name_key == name_key(wanted)) | (integrations.c.schema == wanted),
        )
        with self._database.reading() as connection:
            found = [to_integration(row) for row in connection.execute(statement)]
        if not found:
            raise UnknownIntegrationError(
                f'There is no integration "{wanted}": '
                "`customerio-pipeline integrations list` shows those that exist."
            )
        if len(found) > 1:
            raise RegistryError(
                f'"{wanted}" is the name of one integration and the schema of another: '
                "use the former's schema or the latter's name."
            )
        return found[0]

    def of_schema(self, schema: str) -> Integration:
        """Return the integration of this schema.

        Raises:
            UnknownIntegrationError: there is none.
        """
        if "\0" in schema:
            # PostgreSQL would call it an error of its own.
            raise UnknownIntegrationError("There is no integration with such a schema.")
        statement = INTEGRATION.where(NOT_DELETED, integrations.c.schema == schema)
        with self._database.reading() as connection:
            row = connection.execute(statement).first()
        if row is None:
            raise UnknownIntegrationError(f'There is no integration with the schema "{schema}".')
        return to_integration(row)

    def rename(self, integration: Integration, name: str) -> Integration:
        """Change the display name; the schema stays (stitch-loading 2.3).

        Raises:
            IntegrationExistsError: another integration has the name.
            RegistryError: the name is not allowed.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        name = check_name(name)
        with self._database.changing() as connection:
            begin_change(connection)
            check_name_is_free(connection, name, except_id=integration.id)
            return update(connection, integration, name=name, name_key=name_key(name))

    def pause(self, integration: Integration) -> Integration:
        """Stop loading; the URLs stay live and what arrives is landed.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        return self._set_state(integration, IntegrationState.PAUSED)

    def resume(self, integration: Integration) -> Integration:
        """Load again, beginning with what was landed meanwhile.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        return self._set_state(integration, IntegrationState.ACTIVE)

    def delete(self, integration: Integration) -> None:
        """Make the URLs stop working; tables and landing files stay.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        now = datetime.now(UTC)
        with self._database.changing() as connection:
            begin_change(connection)
            update(connection, integration, state=IntegrationState.DELETED, deleted_at=now)
            connection.execute(
                webhook_urls.update().where(is_live_url_of(integration)).values(revoked_at=now)
            )
            forget_keys(connection, integration)

    def generate_url(self, integration: Integration) -> NewUrl:
        """Make a further URL; the token is never to be had again.

        Raises:
            UrlLimitError: the integration has two live URLs.
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            return add_url(connection, find_by_id(connection, integration.id))

    def urls(self, integration: Integration) -> list[WebhookUrl]:
        """Return every URL that the integration ever had, oldest first."""
        columns = (webhook_urls.c.id, webhook_urls.c.created_at, webhook_urls.c.revoked_at)
        statement = (
            sa.select(*columns)
            .where(webhook_urls.c.integration_id == integration.id, NO_TEST)
            .order_by(webhook_urls.c.created_at, webhook_urls.c.id)
        )
        with self._database.reading() as connection:
            return [WebhookUrl(*row) for row in connection.execute(statement)]

    def url_of_token(self, token: str) -> tuple[int, WebhookUrl] | None:
        """Return the URL of this token, live or revoked, after the id of its integration."""
        statement = sa.select(
            webhook_urls.c.integration_id,
            webhook_urls.c.id,
            webhook_urls.c.created_at,
            webhook_urls.c.revoked_at,
        ).where(webhook_urls.c.token_hash == hash_token(token), NO_TEST)
        with self._database.reading() as connection:
            row = connection.execute(statement).first()
        return None if row is None else (row[0], WebhookUrl(*row[1:]))

    def revoke_url(self, integration: Integration, url_id: str) -> None:
        """Make a URL stop working, in every receiver within a second (design C8).

        Raises:
            UnknownUrlError: the integration has no live URL of this id.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            live = webhook_urls.select().where(is_live_url_of(integration))
            if url_id not in {url.id for url in connection.execute(live)}:
                raise UnknownUrlError(
                    f'"{integration.name}" has no live URL "{url_id}": '
                    f"`customerio-pipeline urls list {integration.schema}` shows its URLs."
                )
            connection.execute(
                webhook_urls.update()
                .where(webhook_urls.c.id == url_id)
                .values(revoked_at=datetime.now(UTC))
            )

    def begin_test(self, integration: Integration) -> NewUrl:
        """Make a URL for one test event, beside the two; end it with `end_test`.

        Raises:
            UnknownIntegrationError: the integration was deleted meanwhile.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            # Of a process that died amid a test: nobody knows its token any more.
            _end_tests(
                connection,
                integration,
                webhook_urls.c.created_at < datetime.now(UTC) - _LONGEST_TEST,
            )
            return add_url(connection, find_by_id(connection, integration.id), is_test=True)

    def end_test(self, integration: Integration, url_id: str) -> None:
        """Make the URL of a test event stop working; others may be under way."""
        with self._database.changing() as connection:
            begin_change(connection)
            _end_tests(connection, integration, webhook_urls.c.id == url_id)

    def generation(self) -> int:
        """Return a number that rises with every change; cheap enough to ask all the time."""
        with self._database.reading() as connection:
            generation: int = connection.execute(_GENERATION).scalar_one()
        return generation

    def snapshot(self) -> RegistrySnapshot:
        """Return every live URL, those of paused integrations too."""
        with self._database.reading() as connection:
            rows = connection.execute(_SNAPSHOT).all()
            # May be newer than the generation, never older: the next look sees to that.
            keys = live_keys(connection)
        live = (
            LiveUrl(
                row.token_hash,
                row.id,
                row.schema,
                SignaturePolicy(
                    SignatureMode(row.signatures),
                    keys.get(row.integration_id, ()),
                    row.signatures_epoch,
                ),
            )
            for row in rows
            if row.id is not None
        )
        return RegistrySnapshot(rows[0].generation, tuple(live))

    def _set_state(self, integration: Integration, state: IntegrationState) -> Integration:
        with self._database.changing() as connection:
            begin_change(connection)
            return update(connection, integration, state=state)


def _end_tests(
    connection: sa.Connection, integration: Integration, which: sa.ColumnElement[bool]
) -> None:
    connection.execute(webhook_urls.delete().where(is_live_url_of(integration), ~NO_TEST, which))
