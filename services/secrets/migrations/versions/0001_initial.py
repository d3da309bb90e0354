"""Key-encryption keys, wrapped keys, secrets."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table("root_check", sa.Column("sealed", sa.LargeBinary, nullable=False))
    op.create_table(
        "keks",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "kek_versions",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("kek_id", sa.String(256), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(["owner", "kek_id"], ["keks.owner", "keks.id"], ondelete="CASCADE"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("kek_id", sa.String(256), nullable=False),
        sa.Column("kek_version", sa.Integer, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.ForeignKeyConstraint(["owner", "kek_id"], ["keks.owner", "keks.id"], ondelete="CASCADE"),
    )
    op.create_index("keys_of_kek", "keys", ["owner", "kek_id", "id"])
    op.create_table(
        "secrets",
        sa.Column("name", _NAME, primary_key=True),
        sa.Column("uid", sa.String(26), nullable=False, unique=True),
        sa.Column("key_id", sa.String(26), sa.ForeignKey("keys.id"), nullable=False, unique=True),
        sa.Column("current_version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "secret_versions",
        sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
    )


def downgrade() -> None:
    for table in ("secret_versions", "secrets", "keys", "kek_versions", "keks", "root_check"):
        op.drop_table(table)
