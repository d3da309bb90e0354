"""API keys: versions, owners, grants, quotas.

A key of 0001 becomes its own first version, under its own id: tokens made of it name that as their credential.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ADDED: dict[str, sa.types.TypeEngine[Any]] = {
    "owner": sa.String(320),
    "grants": sa.JSON(),
    "quotas": sa.JSON(),
    "version": sa.Integer(),
}
_EVERYWHERE = "**"


def upgrade() -> None:
    op.execute("CREATE TABLE first_versions AS SELECT * FROM api_keys")
    for name, kind in _ADDED.items():
        op.add_column("api_keys", sa.Column(name, kind))
    _fill()
    op.drop_index("ix_api_keys_revoked_at", "api_keys")
    # SQLite builds the table anew, and would keep its nameless unique constraints on columns that go.
    with op.batch_alter_table("api_keys", copy_from=_before()) as table:
        table.drop_column("prefix")
        table.drop_column("key_hash")
        for name, kind in _ADDED.items():
            table.alter_column(name, existing_type=kind, nullable=False)
    for name in ("revoked_at", "owner", "created_by"):
        op.create_index(f"ix_api_keys_{name}", "api_keys", [name])
    _create_versions()
    # Later than the new table of keys: SQLite would follow the references of its versions when it drops the old one.
    op.execute(
        "INSERT INTO api_key_versions (id, key_id, number, prefix, key_hash, created_at, last_used_at, usage_count)"
        " SELECT id, id, 1, prefix, key_hash, created_at, last_used_at, usage_count FROM first_versions"
    )
    op.drop_table("first_versions")


def _create_versions() -> None:
    op.create_table(
        "api_key_versions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("key_id", sa.String(26), sa.ForeignKey("api_keys.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("prefix", sa.String(8), nullable=False, unique=True),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, index=True),
        sa.Column("last_used_at", UtcDateTime),
        sa.Column("usage_count", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("key_id", "number"),
    )
    op.create_table(
        "ended_credentials",
        sa.Column("credential_id", sa.String(64), primary_key=True),
        sa.Column("ended_at", UtcDateTime, nullable=False, index=True),
    )


def _fill() -> None:
    keys = sa.table(
        "api_keys",
        sa.column("id"),
        sa.column("created_by"),
        sa.column("owner"),
        sa.column("version"),
        *(sa.column(name, sa.JSON) for name in ("permissions", "scopes", "grants", "quotas")),
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(keys.c.id, keys.c.permissions, keys.c.scopes)).all():
        grants = [["allow", row.permissions, row.scopes or [_EVERYWHERE]]]
        connection.execute(
            sa.update(keys)
            .where(keys.c.id == row.id)
            .values(grants=grants, quotas=[], owner=keys.c.created_by, version=1)
        )


def _before() -> sa.Table:
    return sa.Table(
        "api_keys",
        sa.MetaData(),
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("prefix", sa.String(8), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("permission_set", sa.String(64), nullable=False),
        sa.Column("permissions", sa.JSON, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("revoked_at", UtcDateTime),
        sa.Column("last_used_at", UtcDateTime),
        sa.Column("usage_count", sa.BigInteger, nullable=False),
        *(sa.Column(name, kind) for name, kind in _ADDED.items()),
    )


def downgrade() -> None:
    raise NotImplementedError("Rotated keys have no place in the schema before: restore a backup of it.")
