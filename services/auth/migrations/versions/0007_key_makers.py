"""Which keys have changed a key after it was made."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "api_key_makers",
        sa.Column("key_id", sa.String(26), sa.ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("maker", sa.String(320), primary_key=True, index=True),
    )


def downgrade() -> None:
    op.drop_table("api_key_makers")
