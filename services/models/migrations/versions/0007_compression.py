"""Compressed chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What is stored already is stored as it is.
    op.add_column("chunks", sa.Column("codec", sa.SmallInteger, nullable=False, server_default="0"))
    op.add_column("uploads", sa.Column("compression_level", sa.SmallInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("uploads", "compression_level")
    op.drop_column("chunks", "codec")
