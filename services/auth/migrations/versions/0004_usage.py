"""The ledger of use and the quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNTED = ("requests", "errors", "bytes_received", "bytes_sent", "job_milliseconds")


def upgrade() -> None:
    op.create_table(
        "use_lines",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("principal", sa.String(320), primary_key=True),
        sa.Column("usage_class", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTED),
    )
    op.create_table(
        "use_reports",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, index=True),
    )
    op.create_table(
        "quota_counters",
        sa.Column("principal", sa.String(320), primary_key=True),
        sa.Column("usage_class", sa.String(16), primary_key=True),
        sa.Column("per", sa.String(8), primary_key=True),
        sa.Column("starts_at", sa.DateTime(timezone=True), primary_key=True),
        sa.Column("taken", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("quota_counters", "use_reports", "use_lines"):
        op.drop_table(table)
