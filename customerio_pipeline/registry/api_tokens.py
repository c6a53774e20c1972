"""Tokens of the management API: their hashes, and whether they are still taken.

None of it concerns the receiver, so no change of it raises the registry's generation.
"""

import hmac
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from customerio_pipeline.errors import (
    ApiTokenExistsError,
    RegistryUnavailableError,
    UnknownApiTokenError,
)
from customerio_pipeline.registry.database import Database
from customerio_pipeline.registry.display_names import check_name, name_key
from customerio_pipeline.registry.records import ApiToken, NewApiToken
from customerio_pipeline.registry.steps import begin_change
from customerio_pipeline.registry.tables import api_tokens
from customerio_pipeline.registry.tokens import hash_token, new_api_token_id, new_token

# A write for every request would make requests wait for each other.
_USE_KEPT_EVERY = timedelta(minutes=1)
_COLUMNS = (
    api_tokens.c.id,
    api_tokens.c.name,
    api_tokens.c.created_at,
    api_tokens.c.last_used_at,
    api_tokens.c.revoked_at,
)
_LIVE = api_tokens.c.revoked_at.is_(None)


class ApiTokens:
    """Every method raises `RegistryUnavailableError` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str) -> NewApiToken:
        """Make a token of 256 random bits; it is never to be had again.

        Args:
            name: what it is for; unique among the live ones, whatever its case.

        Raises:
            ApiTokenExistsError: a live one has the name.
            RegistryError: the name is not allowed.
        """
        name = check_name(name)
        new = NewApiToken(new_api_token_id(), new_token())
        with self._database.changing() as connection:
            begin_change(connection)
            # A few rows, and casefolding of every script is not in SQL.
            for taken in connection.scalars(sa.select(api_tokens.c.name).where(_LIVE)):
                if name_key(taken) == name_key(name):
                    raise ApiTokenExistsError(
                        f'There is a live API token "{taken}" already: choose another name.'
                    )
            connection.execute(
                api_tokens.insert().values(
                    id=new.id,
                    name=name,
                    token_hash=hash_token(new.token),
                    created_at=datetime.now(UTC),
                )
            )
        return new

    def list(self) -> list[ApiToken]:
        """Return every token that there ever was, oldest first."""
        statement = sa.select(*_COLUMNS).order_by(api_tokens.c.created_at, api_tokens.c.id)
        with self._database.reading() as connection:
            return [ApiToken(*row) for row in connection.execute(statement)]

    def revoke(self, token_id: str) -> ApiToken:
        """Take the token no more, from the next request on; return what it is now.

        Raises:
            UnknownApiTokenError: there is no live one of this id.
        """
        with self._database.changing() as connection:
            begin_change(connection)
            live = connection.scalars(sa.select(api_tokens.c.id).where(_LIVE)).all()
            if token_id not in live:
                raise UnknownApiTokenError(
                    f'There is no live API token "{token_id}": '
                    "`customerio-pipeline api-tokens list` shows those that exist."
                )
            statement = (
                api_tokens.update()
                .where(api_tokens.c.id == token_id)
                .values(revoked_at=datetime.now(UTC))
            )
            return ApiToken(*connection.execute(statement.returning(*_COLUMNS)).one())

    def id_of(self, token: str) -> str | None:
        """Return the id of a live token, or None; ask for every request, and note its use."""
        given = hash_token(token)
        statement = sa.select(
            api_tokens.c.id, api_tokens.c.token_hash, api_tokens.c.last_used_at
        ).where(_LIVE)
        with self._database.reading() as connection:
            rows = connection.execute(statement).all()
        # All are compared, so that the time tells nothing.
        found = [row for row in rows if hmac.compare_digest(row.token_hash, given)]
        if not found:
            return None
        token_id: str = found[0].id
        self._note_use(token_id, found[0].last_used_at)
        return token_id

    def _note_use(self, token_id: str, last: datetime | None) -> None:
        now = datetime.now(UTC)
        if last is not None and now - last < _USE_KEPT_EVERY:
            return
        # Where the registry can be read but not written to, reading goes on.
        with suppress(RegistryUnavailableError), self._database.changing() as connection:
            connection.execute(
                api_tokens.update().where(api_tokens.c.id == token_id).values(last_used_at=now)
            )
