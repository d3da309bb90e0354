"""At most one identity of the index: replicas that started together could make one each."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = sa.table("index_identity", sa.column("id"))
    # Where there are several none was ever written to a store: all of a collection begins with reading the one.
    kept = sa.select(sa.func.min(identity.c.id)).scalar_subquery()
    op.execute(sa.delete(identity).where(identity.c.id != kept))
    op.add_column("index_identity", sa.Column("number", sa.Integer, nullable=False, server_default="1"))
    op.create_index("index_identity_is_one", "index_identity", ["number"], unique=True)


def downgrade() -> None:
    op.drop_index("index_identity_is_one", "index_identity")
    op.drop_column("index_identity", "number")
