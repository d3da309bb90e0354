"""The secrets that keys have had. A key keeps its id and its rights while they change; two may work at a time.

The id of a version is the credential that tokens made with that secret name: `key:<version id>`.
"""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.auth.pepper import Pepper
from services.auth.rights import stored_grants, stored_quotas
from services.auth.tables import api_key_versions as v
from services.auth.tables import api_keys as k
from services.auth.tables import ended_credentials
from services.shared.database import Database
from services.shared.errors import FailedPrecondition
from services.shared.identity import Principal
from services.shared.ids import new_id

KIND = "key"
# Secrets of one key that may work at the same time.
MAX_LIVE = 5
# An ended version is of use while a token made with it may live, and to name a late caller in the log: the latest few
# are kept for good.
_FORGOTTEN_AFTER = timedelta(hours=1)
_KEPT = 16


class VersionsExhausted(FailedPrecondition):
    reason = "API_KEY_VERSIONS_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One secret of a key; the secret itself cannot be had from it. `expires_at` is the end of its grace."""

    id: str
    number: int
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    def active(self, now: datetime) -> bool:
        """Whether it has not been superseded, or is still in its grace."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """A key as somebody presents it, whatever its state. `expires_at` is its end or that of the secret's grace."""

    key_id: str
    principal: Principal
    revoked_at: datetime | None
    expires_at: datetime | None


# Asked at every request: building a statement anew would cost more than running it.
_PRESENTED = (
    sa.select(
        *(v.c.id.label("version_id"), v.c.key_hash, v.c.prefix, v.c.expires_at.label("grace_ends")),
        *(k.c.id, k.c.name, k.c.grants, k.c.quotas, k.c.revoked_at, k.c.expires_at),
    )
    .join(k)
    .where(v.c.key_hash == sa.bindparam("key_hash"))
)
_STATE = (
    sa.select(v.c.expires_at.label("grace_ends"), k.c.revoked_at, k.c.expires_at)
    .select_from(v.join(k))
    .where(v.c.id == sa.bindparam("id"))
)


class KeyVersions:
    """Finds keys by their secrets, and knows which of them still work: a CredentialSource."""

    def __init__(self, database: Database, pepper: Pepper, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    def find(self, text: str) -> PresentedKey | None:
        """The key that somebody presents; None if nobody was given it."""
        key_hash = self._pepper.hash(text)
        row = self._database.row(_PRESENTED, {"key_hash": key_hash})
        # The index has compared already, in a time that tells at most about a hash under the pepper; this one is exact.
        return _presented(row) if row is not None and hmac.compare_digest(row.key_hash, key_hash) else None

    def unusable(self, credential_id: str) -> bool:
        """Whether tokens of this secret must be refused: it was revoked, has expired or does not exist."""
        row = self._database.row(_STATE, {"id": _version_id(credential_id)})
        if row is None or row.revoked_at is not None:
            return True
        end = _earlier(row.grace_ends, row.expires_at)
        return end is not None and end <= self._clock()

    def expires_at(self, credential_id: str) -> datetime | None:
        """When the secret stops working by itself; None if it does not, or is not there."""
        with self._database.read() as connection:
            return end_of(connection, credential_id)

    def revoked_since(self, moment: datetime) -> list[str]:
        """The credentials that were revoked, or whose grace ended, at that moment or later."""
        queries = (
            sa.select(v.c.id).join(k).where(k.c.revoked_at >= moment),
            sa.select(v.c.id).where(v.c.expires_at >= moment, v.c.expires_at <= self._clock()),
        )
        with self._database.read() as connection:
            found = {f"{KIND}:{version}" for query in queries for version in connection.scalars(query)}
            named = sa.select(ended_credentials.c.credential_id).where(
                ended_credentials.c.ended_at >= moment, ended_credentials.c.credential_id.startswith(f"{KIND}:")
            )
            return sorted(found.union(connection.scalars(named)))


def ended(connection: sa.Connection, credential_id: str) -> bool:
    """Whether the secret's key was revoked, or there is no such secret."""
    row = connection.execute(_STATE, {"id": _version_id(credential_id)}).one_or_none()
    return row is None or row.revoked_at is not None


def end_of(connection: sa.Connection, credential_id: str) -> datetime | None:
    """When a secret stops working by itself; None if it does not, or is not there."""
    row = connection.execute(_STATE, {"id": _version_id(credential_id)}).one_or_none()
    return None if row is None else _earlier(row.grace_ends, row.expires_at)


def add(connection: sa.Connection, key_id: str, number: int, prefix: str, key_hash: bytes, now: datetime) -> None:
    """Stores a secret's hash as the newest version of a key."""
    row = {"id": new_id(), "key_id": key_id, "number": number, "prefix": prefix, "key_hash": key_hash}
    connection.execute(sa.insert(v).values(row | {"created_at": now, "usage_count": 0}))


def supersede(connection: sa.Connection, key_id: str, number: int, now: datetime, grace: timedelta) -> None:
    """Ends the key's versions after the grace, or when they would have ended before; `number` is the coming one's.

    Raises VersionsExhausted if more than MAX_LIVE would work. The key's row must be locked.
    """
    end = now + grace
    live = sa.select(sa.func.count()).where(v.c.key_id == key_id, v.c.expires_at.is_(None) | (v.c.expires_at > now))
    if grace and connection.execute(live).scalar_one() >= MAX_LIVE:
        raise VersionsExhausted(
            f"{MAX_LIVE} secrets of this key work already. Wait until the grace of one ends, or rotate with "
            "grace_seconds 0, which ends all but the new one."
        )
    later = v.c.expires_at.is_(None) | (v.c.expires_at > end)
    connection.execute(sa.update(v).where(v.c.key_id == key_id, later).values(expires_at=end))
    # The first may be the environment's: forgotten, it would come back with a restart.
    forgotten = v.c.number.between(2, number - _KEPT) & (v.c.expires_at < now - _FORGOTTEN_AFTER)
    connection.execute(sa.delete(v).where(v.c.key_id == key_id, forgotten))


def renew_ids(connection: sa.Connection, key_id: str, now: datetime) -> None:
    """Ends every token made with the key's secrets, which work on: their versions get other ids.

    The key's row must be locked.
    """
    working = v.c.expires_at.is_(None) | (v.c.expires_at > now)
    for version_id in connection.scalars(sa.select(v.c.id).where(v.c.key_id == key_id, working)).all():
        connection.execute(sa.insert(ended_credentials).values(credential_id=f"{KIND}:{version_id}", ended_at=now))
        connection.execute(sa.update(v).where(v.c.id == version_id).values(id=new_id()))
    connection.execute(sa.delete(ended_credentials).where(ended_credentials.c.ended_at < now - _FORGOTTEN_AFTER))


def versions_of(connection: sa.Connection, key_ids: Iterable[str], now: datetime) -> dict[str, tuple[KeyVersion, ...]]:
    """Of each key the secrets that work and the latest one that no longer does, the newest first."""
    found: dict[str, list[KeyVersion]] = {}
    rows = connection.execute(sa.select(v).where(v.c.key_id.in_(list(key_ids))).order_by(v.c.number.desc()))
    for row in rows:
        shown = found.setdefault(row.key_id, [])
        version = KeyVersion(row.id, row.number, row.prefix, row.created_at, row.expires_at, row.last_used_at)
        if version.active(now) or not any(not other.active(now) for other in shown):
            shown.append(version)
    return {key_id: tuple(shown) for key_id, shown in found.items()}


def _presented(row: Any) -> PresentedKey:
    grants, quotas = stored_grants(row.grants), stored_quotas(row.quotas)
    principal = Principal(f"{KIND}:{row.id}", row.name, f"{KIND}:{row.version_id}", row.prefix, grants, quotas=quotas)
    return PresentedKey(row.id, principal, row.revoked_at, _earlier(row.grace_ends, row.expires_at))


def _version_id(credential_id: str) -> str:
    return credential_id.removeprefix(f"{KIND}:")


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((moment for moment in (one, other) if moment is not None), default=None)
