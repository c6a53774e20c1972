"""Who may use the management page: the hash of its password, and the sessions that it opened.

None of it concerns the receiver, so no change of it raises the registry's generation.
"""

from datetime import UTC, datetime

import sqlalchemy as sa

from customerio_pipeline.registry.database import Database
from customerio_pipeline.registry.tables import admin_password, admin_sessions


class AdminAccess:
    """Password and sessions of the management page.

    Every method raises `RegistryUnavailableError` when the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def password_hash(self) -> str | None:
        """Return the Argon2 hash of the password; None before there is one."""
        with self._database.reading() as connection:
            return connection.scalar(sa.select(admin_password.c.hash))

    def set_password(self, password_hash: str, *, only_first: bool = False) -> bool:
        """Put a password in force and end every session.

        Args:
            password_hash: its Argon2 hash.
            only_first: leave one that there is as it is.

        Returns:
            Whether it is in force; false only with `only_first`.
        """
        with self._database.changing() as connection:
            if only_first and connection.scalar(sa.select(admin_password.c.hash)) is not None:
                return False
            connection.execute(admin_password.delete())
            connection.execute(
                admin_password.insert().values(id=1, hash=password_hash, set_at=datetime.now(UTC))
            )
            connection.execute(admin_sessions.delete())
        return True

    def begin_session(self, token_hash: bytes, ends_at: datetime) -> None:
        """Open a session, and forget those that are over.

        Args:
            token_hash: SHA-256 digest of the session's token, 32 bytes.
            ends_at: when it is over at the latest.
        """
        now = datetime.now(UTC)
        with self._database.changing() as connection:
            connection.execute(admin_sessions.delete().where(admin_sessions.c.ends_at <= now))
            connection.execute(
                admin_sessions.insert().values(
                    token_hash=token_hash, created_at=now, ends_at=ends_at
                )
            )

    def is_session(self, token_hash: bytes) -> bool:
        """Tell whether there is such a session and it is not over."""
        ends_at = sa.select(admin_sessions.c.ends_at).where(
            admin_sessions.c.token_hash == token_hash
        )
        with self._database.reading() as connection:
            found = connection.scalar(ends_at)
        return found is not None and found > datetime.now(UTC)

    def end_session(self, token_hash: bytes) -> None:
        """End a session, if there is such a one."""
        with self._database.changing() as connection:
            connection.execute(
                admin_sessions.delete().where(admin_sessions.c.token_hash == token_hash)
            )
