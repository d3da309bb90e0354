"""Copies that stores lack, what is known of each store, deletions in the primary alone, whose index this is."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "pending_copies",
        sa.Column("store", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("replaces", sa.Boolean, nullable=False),
        sa.Column("noted_at", UtcDateTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("retry_at", UtcDateTime, nullable=False),
        sa.Column("error", sa.String(255), nullable=False),
    )
    op.create_index("pending_copies_due", "pending_copies", ["store", "retry_at"])
    op.create_table(
        "primary_deletions",
        sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("deleted_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "store_states",
        sa.Column("store", sa.String(32), primary_key=True),
        sa.Column("error", sa.String(255), nullable=False),
        sa.Column("checked_at", UtcDateTime, nullable=False),
        sa.Column("synced_at", UtcDateTime),
        sa.Column("repair_requested_at", UtcDateTime),
        sa.Column("repaired_at", UtcDateTime),
        sa.Column("holder", sa.String(32)),
        sa.Column("held_until", UtcDateTime),
    )
    op.create_table(
        "index_identity",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("stranger", sa.String(255), nullable=False),
    )


def downgrade() -> None:
    for table in ("index_identity", "store_states", "primary_deletions", "pending_copies"):
        op.drop_table(table)
