"""The tables of the secrets service. No column holds a plaintext."""

import sqlalchemy as sa

from services.shared.audit.table import audit_table
from services.shared.database import UtcDateTime

METADATA = sa.MetaData()

audit_events = audit_table(METADATA)

# Compared byte by byte everywhere, so that names that begin alike stand together: PostgreSQL would ask the locale.
_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")

# The keys that wrap KEKs, by generation: the newest wraps what is new, older ones open what a move has not come to.
root_keys = sa.Table(
    "root_keys",
    METADATA,
    sa.Column("generation", sa.Integer, primary_key=True),
    # The root key it is wrapped by, by its name in the configuration, and what that wrapping is bound to.
    sa.Column("name", sa.String(32), nullable=False),
    sa.Column("context", sa.String(64), nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    # Whether the root key itself wraps KEKs, as it did at first: then nothing is wrapped here, only sealed as a check.
    sa.Column("is_direct", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# Key-encryption keys. `owner` is the service that made it; only that service may use it.
keks = sa.Table(
    "keks",
    METADATA,
    sa.Column("owner", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# KEKs that were destroyed: none is ever made under the same id again.
destroyed_keks = sa.Table(
    "destroyed_keks",
    METADATA,
    sa.Column("owner", sa.String(32), primary_key=True),
    sa.Column("id", sa.String(256), primary_key=True),
    sa.Column("destroyed_at", UtcDateTime, nullable=False),
)

# Every version of a KEK, wrapped by a generation of `root_keys`: old ones stay until nothing is wrapped under them.
kek_versions = sa.Table(
    "kek_versions",
    METADATA,
    sa.Column("owner", sa.String(32), primary_key=True),
    sa.Column("kek_id", sa.String(256), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("root_generation", sa.Integer, nullable=False, default=1),
    # Whether it has encrypted values that are kept elsewhere (`Keyring.encrypt`): then it stays for good.
    sa.Column("encrypts", sa.Boolean, nullable=False, default=False),
    # How it came of a password, as JSON without that; empty for a random one.
    sa.Column("derivation", sa.String(512), nullable=False, default=""),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.ForeignKeyConstraint(["owner", "kek_id"], ["keks.owner", "keks.id"], ondelete="CASCADE"),
    sa.Index("kek_versions_of_root_key", "root_generation"),
)

# Keys of the services, wrapped under a version of a KEK and bound to a context.
keys = sa.Table(
    "keys",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("owner", sa.String(32), nullable=False),
    sa.Column("kek_id", sa.String(256), nullable=False),
    sa.Column("kek_version", sa.Integer, nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    # What it is bound to; unknown (NULL) of keys older than this column until they are re-wrapped.
    sa.Column("context", sa.String(512)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.ForeignKeyConstraint(["owner", "kek_id"], ["keks.owner", "keks.id"], ondelete="CASCADE"),
    sa.Index("keys_of_kek", "owner", "kek_id", "id"),
    sa.Index("keys_of_kek_version", "owner", "kek_id", "kek_version"),
)

# A secret's data key is a row of `keys`; deleting a secret deletes it.
secrets = sa.Table(
    "secrets",
    METADATA,
    sa.Column("name", _NAME, primary_key=True),
    # Tells a secret from an earlier one of the same name, whose values must not be readable in its place.
    sa.Column("uid", sa.String(26), nullable=False, unique=True),
    sa.Column("key_id", sa.ForeignKey("keys.id"), nullable=False, unique=True),
    # Of each stage the version that is in it; 0 for none.
    sa.Column("current_version", sa.Integer, nullable=False),
    sa.Column("previous_version", sa.Integer, nullable=False, default=0),
    sa.Column("pending_version", sa.Integer, nullable=False, default=0),
    # The highest number a version ever had: none is given twice.
    sa.Column("last_version", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("deleted_at", UtcDateTime),
)

secret_versions = sa.Table(
    "secret_versions",
    METADATA,
    sa.Column("secret_name", sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    # Empty once it is destroyed.
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("deleted_at", UtcDateTime),
    sa.Column("destroyed_at", UtcDateTime),
)

# Labels are readable in the database, and found by: they are no place for what is secret.
secret_labels = sa.Table(
    "secret_labels",
    METADATA,
    sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("key", sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql"), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
    sa.Index("secret_labels_by_key", "key", "value", "secret_name"),
)


def hold(connection: sa.Connection, name: str) -> None:
    """Lets one writing transaction at a time pass with this name: what it finds missing stays missing until it ends.

    On SQLite every writer holds the whole database; on PostgreSQL a row that is not there yet can't be locked.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
