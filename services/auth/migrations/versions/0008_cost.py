"""What jobs cost, in the ledger of use."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("use_lines", sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("use_lines", "cost_micros")
