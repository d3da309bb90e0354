"""The tables of rotation: which secret rotates how, and every rotation that there was."""

import sqlalchemy as sa

from services.secrets.tables import METADATA
from services.shared.database import UtcDateTime

_NAME = sa.String(256).with_variant(sa.String(256, collation="C"), "postgresql")

# How a secret rotates. With the secret it goes: another one of the same name does not take over its targets.
rotations = sa.Table(
    "rotations",
    METADATA,
    sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("rotator", sa.String(64), nullable=False),
    # JSON; no secrets.
    sa.Column("options", sa.Text, nullable=False),
    # Empty: when it is asked for.
    sa.Column("schedule", sa.String(128), nullable=False),
    sa.Column("time_zone", sa.String(64), nullable=False),
    sa.Column("grace_seconds", sa.Integer, nullable=False),
    sa.Column("next_run_at", UtcDateTime),
    # After a failure.
    sa.Column("retry_at", UtcDateTime),
    sa.Column("failures", sa.Integer, nullable=False),
    # Who asked for one out of turn that has not begun yet.
    sa.Column("requested_by", sa.String(320)),
    # What keeps it from going on.
    sa.Column("error", sa.String(1024), nullable=False),
    # When there is something to do next, whatever it is.
    sa.Column("wake_at", UtcDateTime),
    # Who does it now, and until when nobody else may.
    sa.Column("lease", sa.String(26)),
    sa.Column("lease_until", UtcDateTime),
    sa.Column("created_by", sa.String(320), nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Index("rotations_awake", "wake_at"),
)

rotation_runs = sa.Table(
    "rotation_runs",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("secret_name", _NAME, sa.ForeignKey("secrets.name", ondelete="CASCADE"), nullable=False),
    # As they were when it began.
    sa.Column("rotator", sa.String(64), nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("grace_seconds", sa.Integer, nullable=False),
    # The step that comes next, or how it ended: see `runs.State`.
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("trigger", sa.String(16), nullable=False),
    sa.Column("requested_by", sa.String(320), nullable=False),
    # The version that was current, and the one that is to be.
    sa.Column("base_version", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer),
    # What `Rotator.prepare` returned, as JSON.
    sa.Column("notes", sa.Text),
    sa.Column("error", sa.String(1024), nullable=False),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    # When the grace of the version before ends, and when it ended.
    sa.Column("retire_at", UtcDateTime),
    sa.Column("retired_at", UtcDateTime),
    sa.Index("runs_of_secret", "secret_name", "id"),
)
