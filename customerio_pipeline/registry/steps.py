"""The steps that changes of the registry are made of, each within the caller's transaction."""

from datetime import UTC, datetime

import sqlalchemy as sa

from customerio_pipeline.errors import (
    IntegrationExistsError,
    SchemaExistsError,
    UnknownIntegrationError,
    UrlLimitError,
)
from customerio_pipeline.registry.display_names import name_key
from customerio_pipeline.registry.records import Arrays, Integration, IntegrationState, NewUrl
from customerio_pipeline.registry.tables import integrations, registry_state, webhook_urls
from customerio_pipeline.registry.tokens import TEST_ID_PREFIX, hash_token, new_token, new_url_id

# Two, so that one can be replaced without a gap: generate, paste, revoke the old one.
MAX_LIVE_URLS = 2

NOT_DELETED = integrations.c.state != IntegrationState.DELETED
NO_TEST = webhook_urls.c.id.not_like(f"{TEST_ID_PREFIX}%")
INTEGRATION = sa.select(
    integrations.c.id,
    integrations.c.name,
    integrations.c.schema,
    integrations.c.state,
    integrations.c.created_at,
    integrations.c.arrays,
)


def begin_change(connection: sa.Connection) -> None:
    """Raise the generation; from here on every other change waits for this one."""
    connection.execute(registry_state.update().values(generation=registry_state.c.generation + 1))


def to_integration(row: sa.Row[tuple[int, str, str, str, datetime, str]]) -> Integration:
    """Make an integration of a row of `INTEGRATION`."""
    key, name, schema, state, created_at, arrays = row
    return Integration(key, name, schema, IntegrationState(state), created_at, Arrays(arrays))


def find_by_id(connection: sa.Connection, key: int) -> Integration:
    """Return the integration.

    Raises:
        UnknownIntegrationError: it was deleted.
    """
    row = connection.execute(INTEGRATION.where(NOT_DELETED, integrations.c.id == key)).first()
    if row is None:
        raise UnknownIntegrationError("The integration was deleted meanwhile: nothing was changed.")
    return to_integration(row)


def update(connection: sa.Connection, integration: Integration, **values: object) -> Integration:
    """Set columns of the integration and return what it is now.

    Raises:
        UnknownIntegrationError: it was deleted.
    """
    find_by_id(connection, integration.id)
    statement = integrations.update().where(integrations.c.id == integration.id).values(**values)
    row = connection.execute(statement.returning(*INTEGRATION.selected_columns)).one()
    return to_integration(row)


def check_name_is_free(
    connection: sa.Connection, name: str, *, except_id: int | None = None
) -> None:
    """Check that no integration but `except_id` has the name, in whatever case.

    Raises:
        IntegrationExistsError: one has.
    """
    statement = sa.select(integrations.c.name).where(
        NOT_DELETED,
        integrations.c.name_key == name_key(name),
        integrations.c.id.is_distinct_from(except_id),
    )
    taken = connection.scalar(statement)
    if taken is not None:
        raise IntegrationExistsError(
            f'There is an integration "{taken}" already: choose another name.'
        )


def check_schema_is_free(connection: sa.Connection, schema: str, *, reuse_schema: bool) -> None:
    """Check that no integration has the schema, nor a deleted one unless `reuse_schema`.

    Raises:
        IntegrationExistsError: one has.
    """
    statement = (
        sa.select(integrations.c.name, integrations.c.state)
        .where(integrations.c.schema == schema)
        .order_by(NOT_DELETED.desc(), integrations.c.id.desc())
    )
    holder = connection.execute(statement).first()
    if holder is None:
        return
    if holder.state != IntegrationState.DELETED:
        raise SchemaExistsError(
            f'The schema "{schema}" is that of the integration "{holder.name}": '
            "choose another schema (--schema)."
        )
    if not reuse_schema:
        raise SchemaExistsError(
            f'The schema "{schema}" holds the tables of the deleted integration "{holder.name}": '
            "choose another (--schema), or continue those tables (--reuse-schema)."
        )


def is_live_url_of(integration: Integration) -> sa.ColumnElement[bool]:
    """Return the condition that a URL is one of the integration's and not revoked."""
    return (webhook_urls.c.integration_id == integration.id) & webhook_urls.c.revoked_at.is_(None)


def add_url(
    connection: sa.Connection, integration: Integration, *, is_test: bool = False
) -> NewUrl:
    """Make a URL for the integration.

    Args:
        connection: of the caller's transaction.
        integration: that the URL is of.
        is_test: it is for a test event only: neither counted nor listed.

    Raises:
        UrlLimitError: it has two live ones.
    """
    live = connection.scalars(
        sa.select(webhook_urls.c.id).where(is_live_url_of(integration), NO_TEST)
    ).all()
    if len(live) >= MAX_LIVE_URLS and not is_test:
        raise UrlLimitError(
            f'"{integration.name}" has {len(live)} live URLs ({", ".join(sorted(live))}): '
            f"revoke one first with `customerio-pipeline urls revoke {integration.schema} URL_ID`."
        )
    url = NewUrl(_free_url_id(connection, is_test=is_test), new_token())
    connection.execute(
        webhook_urls.insert().values(
            id=url.id,
            integration_id=integration.id,
            token_hash=hash_token(url.token),
            created_at=datetime.now(UTC),
        )
    )
    return url


def _free_url_id(connection: sa.Connection, *, is_test: bool) -> str:
    while True:
        url_id = new_url_id(is_test=is_test)
        taken = sa.select(webhook_urls.c.id).where(webhook_urls.c.id == url_id)
        if connection.scalar(taken) is None:
            return url_id
