"""How secrets rotate, and the rotations that there were."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "rotations",
        sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("rotator", sa.String(64), nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("schedule", sa.String(128), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("grace_seconds", sa.Integer, nullable=False),
        sa.Column("next_run_at", UtcDateTime),
        sa.Column("retry_at", UtcDateTime),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("requested_by", sa.String(320)),
        sa.Column("error", sa.String(1024), nullable=False),
        sa.Column("wake_at", UtcDateTime),
        sa.Column("lease", sa.String(26)),
        sa.Column("lease_until", UtcDateTime),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_index("rotations_awake", "rotations", ["wake_at"])
    op.create_table(
        "rotation_runs",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), nullable=False),
        sa.Column("rotator", sa.String(64), nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("grace_seconds", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("requested_by", sa.String(320), nullable=False),
        sa.Column("base_version", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("notes", sa.Text),
        sa.Column("error", sa.String(1024), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("retire_at", UtcDateTime),
        sa.Column("retired_at", UtcDateTime),
    )
    op.create_index("runs_of_secret", "rotation_runs", ["secret_name", "id"])


def downgrade() -> None:
    for table in ("rotation_runs", "rotations"):
        op.drop_table(table)
