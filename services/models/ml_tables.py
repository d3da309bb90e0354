"""The tables of configs, of jobs and of what they make.

`sealed` columns are encrypted under a key of their manager's (`jobs.payloads`): with the manager, that goes.
"""

import sqlalchemy as sa

from services.models.tables import METADATA
from services.shared.database import UtcDateTime

# Listings go by id.
ULID = sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql")


def _of_manager() -> sa.Column[str]:
    return sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), nullable=False)


configs = sa.Table(
    "configs",
    METADATA,
    sa.Column("id", ULID, primary_key=True),
    sa.Column("name", sa.String(128), nullable=False),
    # JSON. No secret: it names columns and parameters.
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

payload_keys = sa.Table(
    "payload_keys",
    METADATA,
    sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), primary_key=True),
    # What the key service calls it.
    sa.Column("key_id", sa.String(64), nullable=False, unique=True),
)

jobs = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", ULID, primary_key=True),
    _of_manager(),
    # train or predict.
    sa.Column("kind", sa.String(16), nullable=False),
    # pending, running, canceling, completed, failed or canceled.
    sa.Column("state", sa.String(16), nullable=False),
    # Of a training its config, of a prediction the artifact of its model.
    sa.Column("config_id", sa.String(64), nullable=False),
    sa.Column("model_artifact_id", sa.String(64), nullable=False),
    # What it makes.
    sa.Column("artifact_id", ULID, nullable=False, unique=True),
    # What its process is told and given; gone when the job ends.
    sa.Column("sealed", sa.LargeBinary),
    # Who submitted it, and which credential loses it if it is revoked.
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("caller_name", sa.String(255), nullable=False),
    sa.Column("credential_id", sa.String(320), nullable=False),
    sa.Column("key_prefix", sa.String(64), nullable=False),
    # How often it was begun, and how often of these its process died.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("crashes", sa.Integer, nullable=False),
    # Which worker has it, and until when unless it says so again.
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
    sa.Index("jobs_of_state", "state", "id"),
)

job_lines = sa.Table(
    "job_lines",
    METADATA,
    sa.Column("job", ULID, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("written_at", UtcDateTime, nullable=False),
    sa.Column("text", sa.String(1024), nullable=False),
    sqlite_with_rowid=False,
)

ml_artifacts = sa.Table(
    "ml_artifacts",
    METADATA,
    sa.Column("id", ULID, primary_key=True),
    _of_manager(),
    sa.Column("parent", ULID, sa.ForeignKey("ml_artifacts.id"), index=True),
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    # Of a trained model, the version that it is; empty for others.
    sa.Column("model_name", sa.String(128), nullable=False),
    sa.Column("version", sa.String(128), nullable=False),
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("config_id", sa.String(64), nullable=False),
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)
