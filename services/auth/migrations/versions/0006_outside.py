"""Signed requests of AWS identities that were accepted once."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "aws_requests",
        sa.Column("signature", sa.String(64), primary_key=True),
        sa.Column("ends_at", UtcDateTime, nullable=False, index=True),
    )


def downgrade() -> None:
    op.drop_table("aws_requests")
