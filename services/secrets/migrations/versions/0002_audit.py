"""The audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql"), primary_key=True),
        sa.Column("time", _Number, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("principal", sa.String(320), nullable=False),
        sa.Column("principal_name", sa.String(255), nullable=False),
        sa.Column("key_prefix", sa.String(16), nullable=False),
        sa.Column("method", sa.String(256), nullable=False),
        sa.Column("resource", sa.String(1024), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("count", _Number, nullable=False),
        sa.Column("chain", sa.String(26), nullable=False),
        sa.Column("sequence", _Number, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.UniqueConstraint("chain", "sequence"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("audit_events")
