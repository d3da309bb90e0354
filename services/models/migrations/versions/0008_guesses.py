"""Who has opened a protected version does not wait for what others guess."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Whoever opened one before becomes known by opening it again.
    op.add_column("access_code_guesses", sa.Column("opened_at", UtcDateTime))


def downgrade() -> None:
    op.drop_column("access_code_guesses", "opened_at")
