"""Aliases, stages, tags, cards, lineage, and the registry of artifacts."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Ulid = sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def _about(table: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{table}.id", ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "aliases",
        sa.Column("model", _Number, _about("models"), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("version", _Number, _about("versions"), nullable=False, index=True),
        sa.Column("etag", sa.String(26), nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("updated_by", sa.String(320), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_notes",
        sa.Column("model", _Number, _about("models"), primary_key=True, autoincrement=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("etag", sa.String(26), nullable=False),
    )
    op.create_table(
        "version_notes",
        sa.Column("version", _Number, _about("versions"), primary_key=True, autoincrement=False),
        sa.Column("card", sa.Text, nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("etag", sa.String(26), nullable=False),
    )
    op.create_table(
        "model_tags",
        sa.Column("model", _Number, _about("models"), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Index("model_tags_by_value", "name", "value"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "version_tags",
        sa.Column("version", _Number, _about("versions"), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Index("version_tags_by_value", "name", "value"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "version_parents",
        sa.Column("id", _Number, primary_key=True),
        sa.Column("version", _Number, _about("versions"), nullable=False, index=True),
        sa.Column("parent", _Number, sa.ForeignKey("versions.id", ondelete="SET NULL"), index=True),
        sa.Column("manager_id", sa.String(128), nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("version_name", sa.String(128), nullable=False),
        sa.Column("uri", sa.String(2048), nullable=False),
        sa.Column("relationship", sa.String(128), nullable=False),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", _Ulid, primary_key=True),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("readme", sa.Text, nullable=False),
        sa.Column("etag", sa.String(26), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Index("artifacts_by_name", "name", "id"),
    )
    op.create_table(
        "artifact_dependencies",
        sa.Column("artifact", _Ulid, _about("artifacts"), primary_key=True),
        sa.Column("needs", _Ulid, _about("artifacts"), primary_key=True, index=True),
        sa.Column("relationship", sa.String(128), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in (
        "artifact_dependencies",
        "artifacts",
        "version_parents",
        "version_tags",
        "model_tags",
        "version_notes",
        "model_notes",
        "aliases",
    ):
        op.drop_table(table)
