"""The tables of the auth service."""

import sqlalchemy as sa

from services.shared.database import UtcDateTime

METADATA = sa.MetaData()

api_keys = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("prefix", sa.String(8), nullable=False, unique=True),
    # HMAC-SHA256 of the whole key under the pepper: what a key is found by.
    sa.Column("key_hash", sa.LargeBinary(32), nullable=False, unique=True),
    # Empty for custom permissions.
    sa.Column("permission_set", sa.String(64), nullable=False),
    sa.Column("permissions", sa.JSON, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    # A principal, such as `key:01J…`.
    sa.Column("created_by", sa.String(320), nullable=False),
    # The administrator's key that the environment gives.
    sa.Column("bootstrap", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime, index=True),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column("usage_count", sa.BigInteger, nullable=False),
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
