"""How old the secrets of keys are, judged by a policy."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from services.auth.key_record import active_at
from services.auth.tables import api_key_versions as v
from services.auth.tables import api_keys as k
from services.shared.database import Database
from services.shared.errors import PageTokenInvalid

DEFAULT_DAYS = 90
_DEFAULT_PAGE = 100
# The last tenth of the policy: time to plan a rotation.
_DUE = 0.9


@dataclass(frozen=True, slots=True)
class KeyAge:
    """How old the newest secret of a key is. `status` is `ok`, `due` or `overdue`."""

    id: str
    name: str
    prefix: str
    owner: str
    age_days: int
    status: str
    rotated_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class AgeReport:
    """A page of it; the counts are of all active keys."""

    keys: tuple[KeyAge, ...]
    max_age_days: int
    overdue: int
    total: int
    next_page_token: str


class KeyAges:
    """Reports on the active keys."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def report(self, max_age_days: int, page_size: int, page_token: str) -> AgeReport:
        """The keys with the oldest secrets first. Raises PageTokenInvalid."""
        now, policy, size = self._clock(), max_age_days or DEFAULT_DAYS, page_size or _DEFAULT_PAGE
        newest = (v.c.key_id == k.c.id) & (v.c.number == k.c.version)
        active = k.join(v, newest)
        columns = (k.c.id, k.c.name, v.c.prefix, k.c.owner, v.c.created_at, k.c.last_used_at)
        query = sa.select(*columns).select_from(active).where(active_at(now), _behind(page_token))
        count = sa.select(sa.func.count()).select_from(active).where(active_at(now))
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(v.c.created_at, k.c.id).limit(size + 1)).all()
            total = connection.execute(count).scalar_one()
            overdue = connection.execute(count.where(v.c.created_at < now - timedelta(days=policy))).scalar_one()
        keys = tuple(
            KeyAge(
                *(row.id, row.name, row.prefix, row.owner, (now - row.created_at).days),
                *(_status(now - row.created_at, timedelta(days=policy)), row.created_at, row.last_used_at),
            )
            for row in rows[:size]
        )
        return AgeReport(keys, policy, overdue, total, _token(keys[-1]) if len(rows) > size else "")


def _status(age: timedelta, policy: timedelta) -> str:
    return "overdue" if age > policy else "due" if age >= _DUE * policy else "ok"


def _token(last: KeyAge) -> str:
    return f"{last.rotated_at.astimezone(UTC).replace(tzinfo=None).isoformat()}~{last.id}"


def _behind(page_token: str) -> sa.ColumnElement[bool]:
    if not page_token:
        return sa.true()
    moment, _, key_id = page_token.partition("~")
    try:
        rotated_at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    except ValueError:
        raise PageTokenInvalid("ReportKeyAges") from None
    return (v.c.created_at > rotated_at) | ((v.c.created_at == rotated_at) & (k.c.id > key_id))
