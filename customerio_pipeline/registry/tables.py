"""The registry's tables, the same in SQLite and PostgreSQL."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

# Of the layout below; a registry with a greater one was made by a newer release.
SCHEMA_VERSION = 6

# What makes a registry of the version before it one of this version, besides missing tables, which
# are made before.
UPGRADES = {
    2: ("ALTER TABLE registry_integrations ADD COLUMN arrays TEXT DEFAULT 'json' NOT NULL",),
    3: (),  # tables of the management page
    4: (
        "ALTER TABLE registry_integrations ADD COLUMN signatures TEXT DEFAULT 'require' NOT NULL",
        "ALTER TABLE registry_integrations ADD COLUMN signatures_epoch BIGINT DEFAULT 0 NOT NULL",
    ),
    5: (),  # the table of API tokens
    6: (),  # the tables of rules on fields
}

metadata = sa.MetaData()


class _UtcTime(sa.types.TypeDecorator[datetime]):
    """A time that comes back with its zone; SQLite keeps none."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002  SQLAlchemy's signature
    ) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002  SQLAlchemy's signature
    ) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


# One row. Every change raises `generation` in its own transaction, and does so first: the row's
# lock then makes changes wait for each other, so none needs to fear another half-way.
registry_state = sa.Table(
    "registry_state",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
)

integrations = sa.Table(
    "registry_integrations",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False),
    sa.Column("schema", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", _UtcTime, nullable=False),
    sa.Column("deleted_at", _UtcTime),
    sa.Column("arrays", sa.Text, nullable=False, server_default="json"),
    sa.Column("signatures", sa.Text, nullable=False, server_default="require"),
    sa.Column("signatures_epoch", sa.BigInteger, nullable=False, server_default="0"),
    sa.CheckConstraint("state IN ('active', 'paused', 'deleted')"),
)

webhook_urls = sa.Table(
    "registry_webhook_urls",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("integration_id", sa.ForeignKey(integrations.c.id), nullable=False, index=True),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("created_at", _UtcTime, nullable=False),
    sa.Column("revoked_at", _UtcTime),
)

# Removed ones stay, as verdicts name them; without the secret.
signing_keys = sa.Table(
    "registry_signing_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("integration_id", sa.ForeignKey(integrations.c.id), nullable=False, index=True),
    sa.Column("secret", sa.Text),
    sa.Column("added_at", _UtcTime, nullable=False),
    sa.Column("removed_at", _UtcTime),
    sa.CheckConstraint("(secret IS NULL) = (removed_at IS NOT NULL)"),
)

# Of a schema, not of an integration: whoever continues its tables continues its rules and hashes.
field_rules = sa.Table(
    "registry_field_rules",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("schema", sa.Text, nullable=False, index=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("pattern", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("added_at", _UtcTime, nullable=False),
    sa.CheckConstraint("action IN ('drop', 'hash', 'keep')"),
)

# A row where there ever was a rule; it stays when the last one is gone.
field_policies = sa.Table(
    "registry_field_policies",
    metadata,
    sa.Column("schema", sa.Text, primary_key=True),
    sa.Column("secret", sa.Text),
    sa.Column("changed_at", _UtcTime, nullable=False),
)

# The management page's password: at most one row.
admin_password = sa.Table(
    "registry_admin_password",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("set_at", _UtcTime, nullable=False),
)

admin_sessions = sa.Table(
    "registry_admin_sessions",
    metadata,
    sa.Column("token_hash", sa.LargeBinary, primary_key=True),
    sa.Column("created_at", _UtcTime, nullable=False),
    sa.Column("ends_at", _UtcTime, nullable=False),
)

# Revoked ones stay, as log lines name them.
api_tokens = sa.Table(
    "registry_api_tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("token_hash", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("created_at", _UtcTime, nullable=False),
    sa.Column("last_used_at", _UtcTime),
    sa.Column("revoked_at", _UtcTime),
)

# Names and schemas of deleted integrations are free again (stitch-loading 2.4).
_is_live = integrations.c.state != "deleted"
for _column in (integrations.c.name_key, integrations.c.schema):
    sa.Index(
        f"registry_live_{_column.name}",
        _column,
        unique=True,
        sqlite_where=_is_live,
        postgresql_where=_is_live,
    )
