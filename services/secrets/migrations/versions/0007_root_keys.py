"""Root keys that can be moved, and KEKs that stay destroyed."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime
from services.shared.ids import new_id

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    root_keys = op.create_table(
        "root_keys",
        sa.Column("generation", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("context", sa.String(64), nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("is_direct", sa.Boolean, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    # Until now the root key was a file and wrapped KEKs itself. It goes on to until it is moved.
    sealed = op.get_bind().execute(sa.text("SELECT sealed FROM root_check")).scalar()
    if sealed is not None:
        first = {"generation": 1, "name": "file", "context": new_id(), "wrapped": bytes(sealed), "is_direct": True}
        op.bulk_insert(root_keys, [{**first, "created_at": datetime.now(UTC)}])
    op.drop_table("root_check")
    op.add_column("kek_versions", sa.Column("root_generation", sa.Integer, nullable=False, server_default="1"))
    op.create_index("kek_versions_of_root_key", "kek_versions", ["root_generation"])
    op.create_table(
        "destroyed_keks",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("id", sa.String(256), primary_key=True),
        sa.Column("destroyed_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("root keys are no longer in one place: restore a backup of the earlier version")
