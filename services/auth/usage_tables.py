"""The tables of the ledger of use and of the quotas."""

import sqlalchemy as sa

from services.auth.tables import METADATA
from services.shared.database import UtcDateTime

# A line is added to, and never taken back.
use_lines = sa.Table(
    "use_lines",
    METADATA,
    # Of UTC, such as `2026-11-21`: sorts as it reads.
    sa.Column("day", sa.String(10), primary_key=True),
    sa.Column("principal", sa.String(320), primary_key=True),
    sa.Column("usage_class", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Column("bytes_received", sa.BigInteger, nullable=False),
    sa.Column("bytes_sent", sa.BigInteger, nullable=False),
    sa.Column("job_milliseconds", sa.BigInteger, nullable=False),
    sa.Column("cost_micros", sa.BigInteger, nullable=False, server_default="0"),
)

# Reports that are in the lines above.
use_reports = sa.Table(
    "use_reports",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("recorded_at", UtcDateTime, nullable=False, index=True),
)

# How many requests were taken out of a quota in a period.
quota_counters = sa.Table(
    "quota_counters",
    METADATA,
    sa.Column("principal", sa.String(320), primary_key=True),
    sa.Column("usage_class", sa.String(16), primary_key=True),
    # `minute`, `hour` or `day`.
    sa.Column("per", sa.String(8), primary_key=True),
    sa.Column("starts_at", UtcDateTime, primary_key=True),
    sa.Column("taken", sa.BigInteger, nullable=False),
)
