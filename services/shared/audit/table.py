"""The table of the audit log, the same in every service's database."""

import sqlalchemy as sa

from services.shared.audit.event import LENGTHS

_Number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def audit_table(metadata: sa.MetaData) -> sa.Table:
    """Adds the table `audit_events` to a service's metadata. Its rows are inserted, and never updated or deleted."""
    return sa.Table(
        "audit_events",
        metadata,
        # Compared byte by byte everywhere: pages end at an id.
        sa.Column("id", sa.String(26).with_variant(sa.String(26, collation="C"), "postgresql"), primary_key=True),
        # Microseconds since 1970.
        sa.Column("time", _Number, nullable=False),
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in LENGTHS.items()),
        sa.Column("count", _Number, nullable=False),
        sa.Column("chain", sa.String(26), nullable=False),
        sa.Column("sequence", _Number, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.UniqueConstraint("chain", "sequence"),
        sqlite_with_rowid=False,
    )
