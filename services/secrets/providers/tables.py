"""What is kept of providers in this service's database: names of secrets and moments, never a value."""

import sqlalchemy as sa

from services.secrets.tables import METADATA
from services.shared.database import UtcDateTime

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")
_PROVIDER = sa.String(32)

# Secrets that a replica may have otherwise than the primary. Written in the transaction that changes the secret.
outbox = sa.Table(
    "provider_outbox",
    METADATA,
    sa.Column("provider", _PROVIDER, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    # Another one with each change: who carried an earlier one out leaves the row.
    sa.Column("generation", sa.String(26), nullable=False),
    sa.Column("noted_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("retry_at", UtcDateTime, nullable=False),
    sa.Column("error", sa.String(255), nullable=False),
    sa.Index("provider_outbox_due", "provider", "retry_at"),
)

# What was last seen of a provider.
states = sa.Table(
    "provider_states",
    METADATA,
    sa.Column("provider", _PROVIDER, primary_key=True),
    # Why it does not answer; empty if it does.
    sa.Column("error", sa.String(255), nullable=False, default=""),
    sa.Column("checked_at", UtcDateTime),
    sa.Column("requested_at", UtcDateTime),
    # Whether what the comparison that is asked for finds shall be repaired.
    sa.Column("repair", sa.Boolean, nullable=False, default=False),
    sa.Column("compared_at", UtcDateTime),
    # Why the last comparison could not be made; empty if it was.
    sa.Column("problem", sa.String(255), nullable=False, default=""),
)

# Where the last comparison found a replica otherwise than the primary.
drift = sa.Table(
    "provider_drift",
    METADATA,
    sa.Column("provider", _PROVIDER, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("found_at", UtcDateTime, nullable=False),
)

# Who writes to a secret of a provider; under an empty name, who looks after the provider.
leases = sa.Table(
    "provider_leases",
    METADATA,
    sa.Column("provider", _PROVIDER, primary_key=True),
    sa.Column("name", _NAME, primary_key=True),
    sa.Column("holder", sa.String(26), nullable=False),
    sa.Column("held_until", UtcDateTime, nullable=False),
)
