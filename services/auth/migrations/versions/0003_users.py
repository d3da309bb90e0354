"""Users, sessions and refresh tokens."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_users()
    _create_sessions()
    op.create_table(
        "sign_in_failures",
        sa.Column("scope", sa.LargeBinary(32), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("blocked_until", UtcDateTime, nullable=False),
        sa.Column("forgotten_at", UtcDateTime, nullable=False, index=True),
    )


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", sa.Text, nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(64), nullable=False, index=True),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("must_change_password", sa.Boolean, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("last_sign_in_at", UtcDateTime),
    )
    user = sa.ForeignKey("users.id", ondelete="CASCADE")
    op.create_table(
        "known_addresses",
        sa.Column("user_id", sa.String(26), user, primary_key=True),
        sa.Column("address_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("signed_in_at", UtcDateTime, nullable=False, index=True),
    )


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("user_id", sa.String(26), nullable=False, index=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("refreshed_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
        sa.Column("ended_at", UtcDateTime, index=True),
    )
    session = sa.ForeignKey("sessions.id", ondelete="CASCADE")
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
        sa.Column("session_id", sa.String(26), session, nullable=False, index=True),
        sa.Column("used_at", UtcDateTime),
    )


def downgrade() -> None:
    for table in ("sign_in_failures", "refresh_tokens", "sessions", "known_addresses", "users"):
        op.drop_table(table)
