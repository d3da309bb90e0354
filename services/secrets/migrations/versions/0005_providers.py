"""Providers of secrets: what replicas lack, what was seen of them, who writes to them."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")
_PROVIDER = sa.String(32)


def upgrade() -> None:
    op.create_table(
        "provider_outbox",
        sa.Column("provider", _PROVIDER, primary_key=True),
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("generation", sa.String(26), nullable=False),
        sa.Column("noted_at", UtcDateTime, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("retry_at", UtcDateTime, nullable=False),
        sa.Column("error", sa.String(255), nullable=False),
    )
    op.create_index("provider_outbox_due", "provider_outbox", ["provider", "retry_at"])
    op.create_table(
        "provider_states",
        sa.Column("provider", _PROVIDER, primary_key=True),
        sa.Column("error", sa.String(255), nullable=False),
        sa.Column("checked_at", UtcDateTime),
        sa.Column("requested_at", UtcDateTime),
        sa.Column("repair", sa.Boolean, nullable=False),
        sa.Column("compared_at", UtcDateTime),
        sa.Column("problem", sa.String(255), nullable=False),
    )
    op.create_table(
        "provider_drift",
        sa.Column("provider", _PROVIDER, primary_key=True),
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("found_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "provider_leases",
        sa.Column("provider", _PROVIDER, primary_key=True),
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("holder", sa.String(26), nullable=False),
        sa.Column("held_until", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("provider_leases", "provider_drift", "provider_states", "provider_outbox"):
        op.drop_table(table)
