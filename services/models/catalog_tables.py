"""The tables of what is said about models and versions, and of the registry of artifacts. Rows go with what they are
about."""

import sqlalchemy as sa

from services.models.tables import METADATA, versions
from services.shared.database import UtcDateTime

NUMBER = versions.c.id.type


def _about(table: str) -> sa.ForeignKey:
    return sa.ForeignKey(f"{table}.id", ondelete="CASCADE")


aliases = sa.Table(
    "aliases",
    METADATA,
    sa.Column("model", NUMBER, _about("models"), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("version", NUMBER, _about("versions"), nullable=False, index=True),
    sa.Column("etag", sa.String(26), nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("updated_by", sa.String(320), nullable=False),
    sqlite_with_rowid=False,
)

model_notes = sa.Table(
    "model_notes",
    METADATA,
    sa.Column("model", NUMBER, _about("models"), primary_key=True, autoincrement=False),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("etag", sa.String(26), nullable=False),
)

version_notes = sa.Table(
    "version_notes",
    METADATA,
    sa.Column("version", NUMBER, _about("versions"), primary_key=True, autoincrement=False),
    sa.Column("card", sa.Text, nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("etag", sa.String(26), nullable=False),
)

model_tags = sa.Table(
    "model_tags",
    METADATA,
    sa.Column("model", NUMBER, _about("models"), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
    sa.Index("model_tags_by_value", "name", "value"),
    sqlite_with_rowid=False,
)

version_tags = sa.Table(
    "version_tags",
    METADATA,
    sa.Column("version", NUMBER, _about("versions"), primary_key=True),
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("value", sa.String(256), nullable=False),
    sa.Index("version_tags_by_value", "name", "value"),
    sqlite_with_rowid=False,
)

version_parents = sa.Table(
    "version_parents",
    METADATA,
    sa.Column("id", NUMBER, primary_key=True),
    sa.Column("version", NUMBER, _about("versions"), nullable=False, index=True),
    # Empty once the parent is deleted, or if it is something at an address.
    sa.Column("parent", NUMBER, sa.ForeignKey("versions.id", ondelete="SET NULL"), index=True),
    # What the parent was called, which outlives it.
    sa.Column("manager_id", sa.String(128), nullable=False),
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("version_name", sa.String(128), nullable=False),
    sa.Column("uri", sa.String(2048), nullable=False),
    sa.Column("relationship", sa.String(128), nullable=False),
)

artifacts = sa.Table(
    "artifacts",
    METADATA,
    # A ULID: listings go by it, so those made meanwhile come last.
    sa.Column("id", sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql"), primary_key=True),
    sa.Column("type", sa.String(16), nullable=False),
    sa.Column("name", sa.String(256), nullable=False),
    sa.Column("url", sa.String(2048), nullable=False),
    # Of type and address: PostgreSQL indexes no text as long as an address may be.
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("readme", sa.Text, nullable=False),
    sa.Column("etag", sa.String(26), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Index("artifacts_by_name", "name", "id"),
)

artifact_dependencies = sa.Table(
    "artifact_dependencies",
    METADATA,
    sa.Column("artifact", artifacts.c.id.type, _about("artifacts"), primary_key=True),
    sa.Column("needs", artifacts.c.id.type, _about("artifacts"), primary_key=True, index=True),
    sa.Column("relationship", sa.String(128), nullable=False),
    sqlite_with_rowid=False,
)
