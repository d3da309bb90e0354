"""API keys: what they are, where they are stored, who may make and see them."""

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from ulid import ULID

from services.auth import key_format, permission_sets
from services.auth.cover import covers
from services.auth.pepper import Pepper
from services.auth.tables import api_keys
from services.shared.database import Database
from services.shared.errors import InvalidArgument, NotFound, PermissionDenied
from services.shared.identity import Grant, Principal
from services.shared.ids import new_id

# Rows read at a time while looking for those that the caller may see.
_BATCH = 500
_DEFAULT_PAGE = 100
# Asked at every request: building the statement anew would cost more than running it.
_BY_ID = sa.select(api_keys).where(api_keys.c.id == sa.bindparam("id"))
_BY_HASH = sa.select(api_keys).where(api_keys.c.key_hash == sa.bindparam("key_hash"))


class ApiKeyNotFound(NotFound):
    reason = "API_KEY_NOT_FOUND"


class GrantNotCovered(PermissionDenied):
    reason = "GRANT_NOT_COVERED"


class LifetimeNotCovered(PermissionDenied):
    reason = "LIFETIME_NOT_COVERED"


class PageTokenInvalid(InvalidArgument):
    reason = "PAGE_TOKEN_INVALID"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key; the key itself cannot be had from it."""

    id: str
    name: str
    description: str
    prefix: str
    permission_set: str
    permissions: tuple[str, ...]
    scopes: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    usage_count: int

    def active(self, now: datetime) -> bool:
        """Whether the key may still be used."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def principal(self) -> Principal:
        """Whoever presents the key."""
        grant = Grant("allow", self.permissions, self.scopes or (permission_sets.EVERYWHERE,))
        return Principal(f"key:{self.id}", self.name, f"key:{self.id}", self.prefix, (grant,))


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a caller wishes for; `permission_sets.resolve` says which wishes make sense."""

    name: str
    description: str = ""
    permission_set: str = ""
    permissions: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    expires_in: timedelta | None = None


class ApiKeys:
    """The keys of the installation."""

    def __init__(self, database: Database, pepper: Pepper, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock

    def create(self, caller: Principal, wish: NewApiKey) -> tuple[ApiKey, str]:
        """Makes a key. Returns it and its text, which is kept nowhere.

        Raises:
            InvalidArgument: PERMISSION_SET_UNKNOWN, PERMISSIONS_REQUIRED, PERMISSION_UNKNOWN or SCOPE_INVALID.
            GrantNotCovered: the caller holds less than it wants to give.
            LifetimeNotCovered: the new key would outlive the caller's.
        """
        grant = permission_sets.resolve(wish.permission_set, wish.permissions, wish.scopes)
        if not covers(caller.grants, grant):
            raise GrantNotCovered(
                "The new key would be allowed more than you are. Ask for fewer permissions or narrower scopes."
            )
        key = key_format.generate()
        row = new_row(wish, grant, created_by=caller.id, created_at=self._clock())
        self._check_lifetime(caller, row["expires_at"])
        row |= {"prefix": key.prefix, "key_hash": self._pepper.hash(key.text)}
        with self._database.write() as connection:
            connection.execute(sa.insert(api_keys).values(row))
        return self.get(row["id"]), key.text

    def get(self, key_id: str) -> ApiKey:
        """The key of that id. Raises ApiKeyNotFound."""
        with self._database.read() as connection:
            row = connection.execute(_BY_ID, {"id": key_id}).one_or_none()
        if row is None:
            raise ApiKeyNotFound(f"There is no API key {key_id}.", id=key_id)
        return _api_key(row)

    def find(self, text: str) -> ApiKey | None:
        """The key that somebody presents, whatever its state; None if nobody was given it."""
        key_hash = self._pepper.hash(text)
        with self._database.read() as connection:
            row = connection.execute(_BY_HASH, {"key_hash": key_hash}).one_or_none()
        # The index has compared already, in a time that tells at most about a hash under the pepper; this one is exact.
        return _api_key(row) if row is not None and hmac.compare_digest(row.key_hash, key_hash) else None

    def page(
        self, caller: Principal, page_size: int, page_token: str, *, active_only: bool
    ) -> tuple[list[ApiKey], str]:
        """A page of the keys the caller may see, newest first, and the next page's token, empty on the last."""
        size = page_size or _DEFAULT_PAGE
        found: list[ApiKey] = []
        for key in self._newest_first(_after(page_token), active_only=active_only):
            if key.created_by == caller.id or caller.allows("keys.read", f"keys/{key.id}"):
                if len(found) == size:
                    return found, found[-1].id
                found.append(key)
        return found, ""

    def revoke(self, key_id: str) -> ApiKey:
        """Ends a key for good; the first revocation's moment stays. Raises ApiKeyNotFound."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=self._clock())
            )
        return self.get(key_id)

    def unusable(self, credential_id: str) -> bool:
        """Whether tokens of this key must be refused from now on: it was revoked, has expired or does not exist."""
        try:
            return not self.get(credential_id.removeprefix("key:")).active(self._clock())
        except ApiKeyNotFound:
            return True

    def revoked_since(self, moment: datetime) -> list[str]:
        """Ids of the keys revoked at that moment or later."""
        with self._database.read() as connection:
            ids = connection.scalars(sa.select(api_keys.c.id).where(api_keys.c.revoked_at >= moment))
            return [f"key:{key_id}" for key_id in ids]

    def _check_lifetime(self, caller: Principal, expires: datetime | None) -> None:
        """A key that ends must not renew itself: who found it would keep what it opens for ever."""
        own = self.get(caller.credential_id.removeprefix("key:")).expires_at
        if own is not None and (expires is None or expires > own):
            raise LifetimeNotCovered(
                f"Your own key expires at {own:%Y-%m-%d %H:%M} UTC; a key you make must not outlive it."
            )

    def _newest_first(self, after: str, *, active_only: bool) -> Iterator[ApiKey]:
        now = self._clock()
        query = sa.select(api_keys).order_by(api_keys.c.id.desc()).limit(_BATCH)
        if active_only:
            unexpired = api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > now)
            query = query.where(api_keys.c.revoked_at.is_(None), unexpired)
        while True:
            # A connection a batch: none stays open between two items of a generator.
            with self._database.read() as connection:
                rows = connection.execute(query.where(api_keys.c.id < after) if after else query).all()
            yield from map(_api_key, rows)
            if len(rows) < _BATCH:
                return
            after = rows[-1].id


def new_row(wish: NewApiKey, grant: Grant, *, created_by: str, created_at: datetime) -> dict[str, Any]:
    """The columns of a new key but for `prefix` and `key_hash`."""
    return {
        "id": new_id(),
        "name": wish.name,
        "description": wish.description,
        "permission_set": wish.permission_set,
        "permissions": list(grant.permissions),
        "scopes": list(wish.scopes),
        "created_by": created_by,
        "bootstrap": False,
        "created_at": created_at,
        "expires_at": None if wish.expires_in is None else created_at + wish.expires_in,
        "usage_count": 0,
    }


def _after(page_token: str) -> str:
    try:
        return str(ULID.from_str(page_token)) if page_token else ""
    except ValueError:
        raise PageTokenInvalid("page_token is not one that ListApiKeys returned.") from None


def _api_key(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        description=row.description,
        prefix=row.prefix,
        permission_set=row.permission_set,
        permissions=tuple(row.permissions),
        scopes=tuple(row.scopes),
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        usage_count=row.usage_count,
    )
