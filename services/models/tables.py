"""The tables of the models service, and the statements that need to know the database's kind."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from services.shared.audit.table import audit_table
from services.shared.database import UtcDateTime

T = TypeVar("T")

METADATA = sa.MetaData()

audit_events = audit_table(METADATA)

# SQLite numbers rows by itself in columns of exactly this type.
_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

managers = sa.Table(
    "managers",
    METADATA,
    sa.Column("id", sa.String(128), primary_key=True),
    # What the key service calls the manager's key-encryption key, and the dedup-domain secret wrapped by it.
    sa.Column("kek_id", sa.String(256), nullable=False),
    sa.Column("domain_key_id", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # Stands in front of the paths that are shown.
    sa.Column("model_path", sa.String(512), nullable=False, default="./models"),
    sa.Column("task_type", sa.String(32), nullable=False, default="regression"),
    sa.Column("enable_encryption", sa.Boolean, nullable=False, default=True),
    # How a password becomes a key: scrypt, or PBKDF2 with this hash and so many iterations.
    sa.Column("key_iterations", sa.Integer, nullable=False, default=200_000),
    sa.Column("hash_algorithm", sa.String(16), nullable=False, default="sha512"),
    sa.Column("use_scrypt", sa.Boolean, nullable=False, default=True),
    sa.Column("enable_quantization", sa.Boolean, nullable=False, default=False),
    # By which its models are compared; empty: by none.
    sa.Column("primary_metric", sa.String(128), nullable=False, default=""),
)

# A model is there while it has versions.
models = sa.Table(
    "models",
    METADATA,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    # Counted here: a listing must not become slower with every version.
    sa.Column("versions_count", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("manager_id", "name"),
)

# Ids grow, so the newest version is the one with the greatest.
versions = sa.Table(
    "versions",
    METADATA,
    sa.Column("id", _Number, primary_key=True),
    # A ULID: the version's name in its manifest and in the context of its data key.
    sa.Column("uid", sa.String(26), nullable=False, unique=True),
    sa.Column("model_id", _Number, sa.ForeignKey("models.id"), nullable=False),
    sa.Column("name", sa.String(128), nullable=False),
    sa.Column("data_key_id", sa.String(64), nullable=False, unique=True),
    # The secret of the dedup domain that its chunks are in; the data key's own id if an access code protects it.
    sa.Column("domain_key_id", sa.String(64), nullable=False, index=True),
    sa.Column("manifest_key", sa.String(128), nullable=False, unique=True),
    sa.Column("manifest_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("files_count", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(320), nullable=False),
    # Whether this service has read the files whole and found their sha256 right; until then it is the uploader's claim.
    sa.Column("sha256_verified", sa.Boolean, nullable=False),
    sa.UniqueConstraint("model_id", "name"),
    sa.Index("versions_newest", "model_id", "id"),
)

packs = sa.Table(
    "packs",
    METADATA,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("pack_id", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    # Since when it holds no chunk any more; its file is removed some time later, for readers that are still at it.
    sa.Column("died_at", UtcDateTime, index=True),
)

# A row means that the bytes are durable. Deleting it deletes the salt, without which the bytes are noise.
chunks = sa.Table(
    "chunks",
    METADATA,
    sa.Column("id", _Number, primary_key=True),
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), nullable=False),
    sa.Column("chunk_id", sa.LargeBinary(32), nullable=False),
    sa.Column("blob_id", sa.LargeBinary(16), nullable=False),
    sa.Column("salt", sa.LargeBinary(32), nullable=False),
    sa.Column("pack", _Number, sa.ForeignKey("packs.id"), nullable=False, index=True),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("stored_length", sa.Integer, nullable=False),
    sa.Column("plain_length", sa.Integer, nullable=False),
    sa.Column("ciphertext_digest", sa.LargeBinary(32), nullable=False),
    # How the plaintext became what is encrypted (docs/format.md).
    sa.Column("codec", sa.SmallInteger, nullable=False),
    sa.UniqueConstraint("manager_id", "chunk_id"),
)

version_chunks = sa.Table(
    "version_chunks",
    METADATA,
    sa.Column("version", _Number, sa.ForeignKey("versions.id"), primary_key=True),
    sa.Column("chunk", _Number, sa.ForeignKey("chunks.id"), primary_key=True, index=True),
    sqlite_with_rowid=False,
)

# What was measured of a version, by name.
version_metrics = sa.Table(
    "version_metrics",
    METADATA,
    sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
    sqlite_with_rowid=False,
)

# Where in a manager a file of a version was saved: logical names, never places on a disk.
manager_paths = sa.Table(
    "manager_paths",
    METADATA,
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), primary_key=True),
    sa.Column("path", sa.String(1024), primary_key=True),
    sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
    # Its path in the version; empty for a version of several.
    sa.Column("file", sa.String(1024), nullable=False),
    # Whether UploadModel put it there, and nobody saved it yet.
    sa.Column("uploaded", sa.Boolean, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)

uploads = sa.Table(
    "uploads",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), nullable=False),
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    # The principal that opened it: for anybody else it does not exist.
    sa.Column("creator", sa.String(320), nullable=False),
    # open, committed or aborted.
    sa.Column("state", sa.String(9), nullable=False),
    # Whether CreateUpload returns it again. Not for a PutFile: two of them at a time must not share one.
    sa.Column("resumable", sa.Boolean, nullable=False),
    # The secret of the dedup domain its chunks go to; with an access code the data key from which the secret follows.
    sa.Column("domain_key_id", sa.String(64), nullable=False, index=True),
    sa.Column("protected", sa.Boolean, nullable=False, default=False),
    # 0 to 9: how much its new chunks are compressed.
    sa.Column("compression_level", sa.SmallInteger, nullable=False),
    # The version it became.
    sa.Column("version_uid", sa.String(26)),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Index("uploads_of_version", "manager_id", "model_name", "version"),
)

# Leases: while an upload is there, so are the chunks it holds.
upload_chunks = sa.Table(
    "upload_chunks",
    METADATA,
    sa.Column("upload", sa.String(26), sa.ForeignKey("uploads.id"), primary_key=True),
    sa.Column("chunk", _Number, sa.ForeignKey("chunks.id"), primary_key=True, index=True),
    # Whether its bytes came in this upload: proof that the uploader has them.
    sa.Column("sent", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)

# Wrong access codes in a row, by data key and caller, and by all callers who never opened it (presenter empty).
access_code_guesses = sa.Table(
    "access_code_guesses",
    METADATA,
    sa.Column("key_id", sa.String(64), primary_key=True),
    sa.Column("presenter", sa.String(320), primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("blocked_until", UtcDateTime, nullable=False, index=True),
    # When the caller last had the right code: who had it does not wait for what others guess.
    sa.Column("opened_at", UtcDateTime),
    sqlite_with_rowid=False,
)

# Re-wrappings of a manager's keys. `finished_at` is set with the receipt; what has none was interrupted.
rotations = sa.Table(
    "rotations",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), nullable=False),
    sa.Column("requested_by", sa.String(320), nullable=False),
    sa.Column("using_password", sa.Boolean, nullable=False),
    # Of the key-encryption key.
    sa.Column("from_version", sa.Integer, nullable=False),
    sa.Column("to_version", sa.Integer),
    sa.Column("rewrapped_keys", sa.Integer, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Index("rotations_of_manager", "manager_id", "id"),
)

# Re-encryptions: jobs that write the chunks of a manager, or of one of its models, anew under new keys.
reencryptions = sa.Table(
    "reencryptions",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), nullable=False),
    # Empty: all models.
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("requested_by", sa.String(320), nullable=False),
    # The secret of the dedup domain that they are written into.
    sa.Column("domain_key_id", sa.String(64), nullable=False),
    # running, done or failed.
    sa.Column("state", sa.String(8), nullable=False, index=True),
    sa.Column("error", sa.String(512), nullable=False),
    sa.Column("versions_done", sa.Integer, nullable=False),
    sa.Column("bytes_done", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # Until when a process has it.
    sa.Column("leased_until", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Index("reencryptions_of_manager", "manager_id", "id"),
)

# Objects and keys that nothing refers to, and to which nothing may refer any more: they are being removed. Their names
# are random and never used again.
condemned = sa.Table(
    "condemned",
    METADATA,
    # `manifests/<id>`, `packs/ab/<id>`, `keys/<id>` or `keks/<id>`.
    sa.Column("name", sa.String(262), primary_key=True),
    sa.Column("condemned_at", UtcDateTime, nullable=False),
    sa.Column("removed_at", UtcDateTime, index=True),
)

# Objects that a store shall have and may lack: written down before the object is anywhere, deleted once it is there.
pending_copies = sa.Table(
    "pending_copies",
    METADATA,
    sa.Column("store", sa.String(32), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    # Whether what the store has under this name is damaged.
    sa.Column("replaces", sa.Boolean, nullable=False),
    sa.Column("noted_at", UtcDateTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("retry_at", UtcDateTime, nullable=False),
    sa.Column("error", sa.String(255), nullable=False),
    sa.Index("pending_copies_due", "store", "retry_at"),
)

# Versions whose weights were deleted in the primary and live on in replicas.
primary_deletions = sa.Table(
    "primary_deletions",
    METADATA,
    sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("deleted_at", UtcDateTime, nullable=False),
)

# What was last seen of a store, by whichever process, and the job that repairs it.
store_states = sa.Table(
    "store_states",
    METADATA,
    sa.Column("store", sa.String(32), primary_key=True),
    # Empty if it answered.
    sa.Column("error", sa.String(255), nullable=False),
    sa.Column("checked_at", UtcDateTime, nullable=False),
    # When it last had all that it shall have.
    sa.Column("synced_at", UtcDateTime),
    sa.Column("repair_requested_at", UtcDateTime),
    sa.Column("repaired_at", UtcDateTime),
    # Which process works on it, and until when it does unless it says so again.
    sa.Column("holder", sa.String(32)),
    sa.Column("held_until", UtcDateTime),
)

# One row: which index this is. The stores say which one is theirs, and collection removes nothing of another's.
index_identity = sa.Table(
    "index_identity",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    # Grows at each collection, so that an index restored from a backup is found out.
    sa.Column("generation", sa.Integer, nullable=False),
    # Why it does not fit the stores; empty if it does.
    sa.Column("stranger", sa.String(255), nullable=False),
    # 1: of replicas that start together one makes the row.
    sa.Column("number", sa.Integer, nullable=False, server_default="1"),
    sa.Index("index_identity_is_one", "number", unique=True),
)

# Parameters in one statement; SQLite takes 32,766.
_BATCH = 1000


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in portions that fit into the parameters of one statement."""
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Inserts the rows whose keys are not there yet and leaves the others as they are."""
    values = list(rows)
    if values:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), values)


def insert_or_set(
    connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]], **changes: Any
) -> None:
    """Inserts rows; where the primary key is there already, sets the columns in `changes` instead."""
    values = list(rows)
    if values:
        key = list(table.primary_key.columns)
        connection.execute(_insert(connection, table).on_conflict_do_update(index_elements=key, set_=changes), values)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def hold_references(connection: sa.Connection, *, removing: bool = False) -> None:
    """To be called first in a transaction that adds references to chunks, keys or objects, or (`removing`) ends some.

    Additions may go on side by side; a removal sees all of them or none. On SQLite the write lock does that already;
    on PostgreSQL it takes an advisory lock, shared or alone, since a row lock cannot cover what is not a row yet.
    """
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock" if removing else "pg_advisory_xact_lock_shared"
        connection.execute(sa.text(f"SELECT {function}(hashtext('strongroom-references'))"))
