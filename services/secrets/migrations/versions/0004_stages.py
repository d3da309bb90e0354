"""Stages, expiry and deletion of versions, and labels of secrets."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")
_LABEL = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")


def upgrade() -> None:
    for column in ("last_version", "previous_version", "pending_version"):
        op.add_column("secrets", sa.Column(column, sa.Integer, nullable=False, server_default="0"))
    op.add_column("secrets", sa.Column("deleted_at", UtcDateTime))
    # Every write so far made its version the current one.
    op.execute("UPDATE secrets SET last_version = current_version, previous_version = current_version - 1")
    for column in ("expires_at", "deleted_at", "destroyed_at"):
        op.add_column("secret_versions", sa.Column(column, UtcDateTime))
    op.create_table(
        "secret_labels",
        sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", _LABEL, primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
    )
    op.create_index("secret_labels_by_key", "secret_labels", ["key", "value", "secret_name"])


def downgrade() -> None:
    op.drop_table("secret_labels")
    for column in ("expires_at", "deleted_at", "destroyed_at"):
        op.drop_column("secret_versions", column)
    for column in ("last_version", "previous_version", "pending_version", "deleted_at"):
        op.drop_column("secrets", column)
