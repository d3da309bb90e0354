"""Dedup domains of versions and uploads, access codes, rotations, re-encryptions."""

import sqlalchemy as sa
from alembic import op

from services.shared.database import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("versions", "uploads"):
        op.add_column(table, sa.Column("domain_key_id", sa.String(64), nullable=False, server_default=""))
        op.create_index(f"ix_{table}_domain_key_id", table, ["domain_key_id"])
    op.add_column("uploads", sa.Column("protected", sa.Boolean, nullable=False, server_default=sa.false()))
    # Until now a manager had one domain, and all of its versions were in it.
    op.execute(
        "UPDATE versions SET domain_key_id = (SELECT m.domain_key_id FROM managers m JOIN models"
        " ON models.manager_id = m.id WHERE models.id = versions.model_id)"
    )
    op.execute("UPDATE uploads SET domain_key_id = (SELECT domain_key_id FROM managers WHERE id = uploads.manager_id)")
    op.create_table(
        "access_code_guesses",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("presenter", sa.String(320), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("blocked_until", UtcDateTime, nullable=False, index=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rotations",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), nullable=False),
        sa.Column("requested_by", sa.String(320), nullable=False),
        sa.Column("using_password", sa.Boolean, nullable=False),
        sa.Column("from_version", sa.Integer, nullable=False),
        sa.Column("to_version", sa.Integer),
        sa.Column("rewrapped_keys", sa.Integer, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
    )
    op.create_index("rotations_of_manager", "rotations", ["manager_id", "id"])
    op.create_table(
        "reencryptions",
        sa.Column("id", sa.String(26), primary_key=True),
        sa.Column("manager_id", sa.String(128), sa.ForeignKey("managers.id", ondelete="CASCADE"), nullable=False),
        sa.Column("model_name", sa.String(128), nullable=False),
        sa.Column("requested_by", sa.String(320), nullable=False),
        sa.Column("domain_key_id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(8), nullable=False, index=True),
        sa.Column("error", sa.String(512), nullable=False),
        sa.Column("versions_done", sa.Integer, nullable=False),
        sa.Column("bytes_done", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("leased_until", UtcDateTime, nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
    )
    op.create_index("reencryptions_of_manager", "reencryptions", ["manager_id", "id"])

    # Names of key-encryption keys are longer than those of objects.
    with op.batch_alter_table("condemned") as condemned:
        condemned.alter_column("name", type_=sa.String(262), existing_type=sa.String(128), existing_nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("condemned") as condemned:
        condemned.alter_column("name", type_=sa.String(128), existing_type=sa.String(262), existing_nullable=False)
    for table in ("reencryptions", "rotations", "access_code_guesses"):
        op.drop_table(table)
    op.drop_column("uploads", "protected")
    for table in ("versions", "uploads"):
        op.drop_index(f"ix_{table}_domain_key_id", table)
        op.drop_column(table, "domain_key_id")
