"""The tables of the auth service."""

import sqlalchemy as sa

from services.shared.audit.table import audit_table
from services.shared.database import UtcDateTime

METADATA = sa.MetaData()

audit_events = audit_table(METADATA)

api_keys = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    # Empty for custom permissions.
    sa.Column("permission_set", sa.String(64), nullable=False),
    # As they were asked for; empty for custom grants.
    sa.Column("permissions", sa.JSON, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    # Everything the key may do, written out: [[effect, [permission, …], [resource, …]], …].
    sa.Column("grants", sa.JSON, nullable=False),
    # [[class of use, requests, period], …].
    sa.Column("quotas", sa.JSON, nullable=False),
    # Principals, such as `user:01J…` or `key:01J…`.
    sa.Column("owner", sa.String(320), nullable=False, index=True),
    sa.Column("created_by", sa.String(320), nullable=False, index=True),
    # The administrator's key that the environment gives.
    sa.Column("bootstrap", sa.Boolean, nullable=False),
    # Number of the newest version.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime, index=True),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("usage_count", sa.BigInteger, nullable=False),
)

# Who has given a key more rights or a new secret after it was made, beside `created_by`: keys alone, which may be
# revoked with all that was made with them.
api_key_makers = sa.Table(
    "api_key_makers",
    METADATA,
    sa.Column("key_id", sa.String(26), sa.ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("maker", sa.String(320), primary_key=True, index=True),
)

# The secrets that a key has had. A version's id is what tokens made with that secret name as their credential.
api_key_versions = sa.Table(
    "api_key_versions",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("key_id", sa.String(26), sa.ForeignKey("api_keys.id"), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("prefix", sa.String(8), nullable=False, unique=True),
    # HMAC-SHA256 of the whole key under the pepper: what a key is found by.
    sa.Column("key_hash", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # The end of its grace; null for the newest.
    sa.Column("expires_at", UtcDateTime, index=True),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("usage_count", sa.BigInteger, nullable=False),
    # Of two rotations at the same moment one gets the next number.
    sa.UniqueConstraint("key_id", "number"),
)

# Credentials that nothing else remembers and whose tokens may still be alive.
ended_credentials = sa.Table(
    "ended_credentials",
    METADATA,
    sa.Column("credential_id", sa.String(64), primary_key=True),
    sa.Column("ended_at", UtcDateTime, nullable=False, index=True),
)

# The pepper of the hashes above; one row. Encrypted by the key service.
peppers = sa.Table(
    "peppers",
    METADATA,
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# Keys that sign tokens, private parts encrypted by the key service. The primary key makes replicas that start together
# agree: one insert of a generation wins.
signing_keys = sa.Table(
    "signing_keys",
    METADATA,
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kid", sa.String(26), nullable=False, unique=True),
    sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # From this moment on it signs; it is published before.
    sa.Column("signs_from", UtcDateTime, nullable=False),
)

# Signed requests that were exchanged for a token: each is accepted once, by one replica.
aws_requests = sa.Table(
    "aws_requests",
    METADATA,
    # 64 hexadecimal digits.
    sa.Column("signature", sa.String(64), primary_key=True),
    # From then on its age alone refuses it.
    sa.Column("ends_at", UtcDateTime, nullable=False, index=True),
)
