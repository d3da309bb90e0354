"""How managers are configured, and the paths of what is in them."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    # What the managers of before are: the default one alone.
    for column in (
        sa.Column("model_path", sa.String(512), nullable=False, server_default="./models"),
        sa.Column("task_type", sa.String(32), nullable=False, server_default="regression"),
        sa.Column("enable_encryption", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("key_iterations", sa.Integer, nullable=False, server_default="200000"),
        sa.Column("hash_algorithm", sa.String(16), nullable=False, server_default="sha512"),
        sa.Column("use_scrypt", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("enable_quantization", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("primary_metric", sa.String(128), nullable=False, server_default=""),
    ):
        op.add_column("managers", column)
    op.create_table(
        "manager_paths",
        sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id"), primary_key=True),
        sa.Column("path", sa.String(1024), primary_key=True),
        sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("file", sa.String(1024), nullable=False),
        sa.Column("uploaded", sa.Boolean, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "version_metrics",
        sa.Column("version", _Number, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("value", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("version_metrics")
    op.drop_table("manager_paths")
    for name in (
        "primary_metric",
        "enable_quantization",
        "use_scrypt",
        "hash_algorithm",
        "key_iterations",
        "enable_encryption",
        "task_type",
        "model_path",
    ):
        op.drop_column("managers", name)
