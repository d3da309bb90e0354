"""Configs, jobs, and what they make."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_Ulid = sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def _of_manager(*, primary_key: bool = False) -> sa.Column[str]:
    manager = sa.ForeignKey("managers.id", ondelete="CASCADE")
    return sa.Column("manager_id", sa.String(128), manager, primary_key=primary_key, nullable=False)


def upgrade() -> None:
    op.create_table(
        "configs",
        sa.Column("id", _Ulid, primary_key=True),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    op.create_table(
        "payload_keys",
        _of_manager(primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False, unique=True),
    )
    op.create_table(
        "jobs",
        sa.Column("id", _Ulid, primary_key=True),
        _of_manager(),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("config_id", sa.String(64), nullable=False),
        sa.Column("model_artifact_id", sa.String(64), nullable=False),
        sa.Column("artifact_id", _Ulid, nullable=False, unique=True),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("caller_name", sa.String(255), nullable=False),
        sa.Column("credential_id", sa.String(320), nullable=False),
        sa.Column("key_prefix", sa.String(64), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(32)),
        sa.Column("leased_until", UtcDateTime),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("result", sa.String(1024), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("milliseconds", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
    )
    op.create_index("jobs_of_state", "jobs", ["state", "id"])
    op.create_table(
        "job_lines",
        sa.Column("job", _Ulid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("written_at", UtcDateTime, nullable=False),
        sa.Column("text", sa.String(1024), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ml_artifacts",
        sa.Column("id", _Ulid, primary_key=True),
        _of_manager(),
        sa.Column("parent", _Ulid, sa.ForeignKey("ml_artifacts.id"), index=True),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("job_id", sa.String(64), nullable=False),
        sa.Column("config_id", sa.String(64), nullable=False),
        sa.Column("created_by", sa.String(320), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("ml_artifacts", "job_lines", "jobs", "payload_keys", "configs"):
        op.drop_table(table)
