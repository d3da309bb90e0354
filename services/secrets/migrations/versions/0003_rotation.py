"""What rotation needs: the contexts of keys, how versions of KEKs came about, and which encrypt values themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of keys from before it is not known: who asks for their re-wrapping says it.
    op.add_column("keys", sa.Column("context", sa.String(512)))
    op.create_index("keys_of_kek_version", "keys", ["owner", "kek_id", "kek_version"])
    op.add_column("kek_versions", sa.Column("encrypts", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("kek_versions", sa.Column("derivation", sa.String(512), nullable=False, server_default=""))
    # Any version from before may have, but for those of the models service, which never asks for it.
    op.execute(sa.text("UPDATE kek_versions SET encrypts = :yes WHERE owner <> 'models'").bindparams(yes=True))


def downgrade() -> None:
    op.drop_index("keys_of_kek_version", "keys")
    op.drop_column("keys", "context")
    op.drop_column("kek_versions", "encrypts")
    op.drop_column("kek_versions", "derivation")
