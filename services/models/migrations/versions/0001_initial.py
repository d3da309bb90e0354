"""Managers, models, versions, packs, chunks, uploads and their leases, condemned names."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "managers",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("kek_id", sa.String(256), nullable=False),
        sa.Column("domain_key_id", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "models",
        sa.Column("id", _Number, primary_key=True),
        sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("versions_count", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("manager_id", "name"),
    )
    op.create_table(
        "versions",
        sa.Column("id", _Number, primary_key=True),
        sa.Column("uid", sa.String(26), nullable=False, unique=True),
        sa.Column("model_id", _Number, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("data_key_id", sa.String(64), nullable=False, unique=True),
        sa.Column("manifest_key", sa.String(128), nullable=False, unique=True),
        sa.Column("manifest_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("files_count", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("sha256_verified", sa.Boolean, nullable=False),
        sa.UniqueConstraint("model_id", "name"),
        sa.Index("versions_newest", "model_id", "id"),
    )
    op.create_table(
        "packs",
        sa.Column("id", _Number, primary_key=True),
        sa.Column("pack_id", sa.LargeBinary(16), nullable=False, unique=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("died_at", UtcDateTime, index=True),
    )
    op.create_table(
        "chunks",
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
        sa.UniqueConstraint("manager_id", "chunk_id"),
    )
    op.create_table(
        "version_chunks",
        sa.Column("version", _Number, sa.ForeignKey("versions.id"), primary_key=True),
        sa.Column("chunk", _Number, sa.ForeignKey("chunks.id"), primary_key=True, index=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("creator", sa.String(320), nullable=False),
        sa.Column("state", sa.String(9), nullable=False),
        sa.Column("resumable", sa.Boolean, nullable=False),
        sa.Column("version_uid", sa.String(26)),
        sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
        sa.Index("uploads_of_version", "manager_id", "model_name", "version"),
    )
    op.create_table(
        "upload_chunks",
        sa.Column("upload", sa.String(26), sa.ForeignKey("uploads.id"), primary_key=True),
        sa.Column("chunk", _Number, sa.ForeignKey("chunks.id"), primary_key=True, index=True),
        sa.Column("sent", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "condemned",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("condemned_at", UtcDateTime, nullable=False),
        sa.Column("removed_at", UtcDateTime, index=True),
    )


def downgrade() -> None:
    for table in (
        "condemned",
        "upload_chunks",
        "uploads",
        "version_chunks",
        "chunks",
        "packs",
        "versions",
        "models",
        "managers",
    ):
        op.drop_table(table)
