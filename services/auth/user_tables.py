"""The tables of users and their sessions."""

import sqlalchemy as sa

from services.auth.tables import METADATA
from services.shared.database import UtcDateTime

users = sa.Table(
    "users",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    # As it was given, and as it is compared.
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("email_key", sa.Text, nullable=False, unique=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("role", sa.String(64), nullable=False, index=True),
    sa.Column("is_active", sa.Boolean, nullable=False),
    # argon2id of an HMAC of the password, in the PHC string format, which names its parameters.
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("must_change_password", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # A principal, or `environment`.
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("last_sign_in_at", UtcDateTime),
)

# A sign-in and the family of its refresh tokens. Rows outlive their user, so that the services hear of their end.
sessions = sa.Table(
    "sessions",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("user_id", sa.String(26), nullable=False, index=True),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("refreshed_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Column("ended_at", UtcDateTime, index=True),
)

# Every refresh token of a session, the used ones too: who shows one of those is caught.
refresh_tokens = sa.Table(
    "refresh_tokens",
    METADATA,
    # HMAC-SHA256 of the token under the pepper.
    sa.Column("token_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column(
        "session_id", sa.String(26), sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("used_at", UtcDateTime),
)

# Where a user has signed in before. Addresses are kept as HMACs.
known_addresses = sa.Table(
    "known_addresses",
    METADATA,
    sa.Column("user_id", sa.String(26), sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("address_hash", sa.LargeBinary(32), primary_key=True),
    sa.Column("signed_in_at", UtcDateTime, nullable=False, index=True),
)

# Failed sign-ins, by an HMAC of whom they are counted against: people type passwords where an e-mail address belongs.
sign_in_failures = sa.Table(
    "sign_in_failures",
    METADATA,
    sa.Column("scope", sa.LargeBinary(32), primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("blocked_until", UtcDateTime, nullable=False),
    sa.Column("forgotten_at", UtcDateTime, nullable=False, index=True),
)
