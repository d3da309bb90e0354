"""An API key as it is stored, as it is wished for, and as it shall be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from services.auth import rights
from services.auth.key_versions import KIND, KeyVersion
from services.auth.permission_sets import ScopeInvalid
from services.auth.rights import Rights
from services.auth.tables import api_keys
from services.shared.identity import Principal, Quota
from services.shared.ids import new_id


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key; the key itself cannot be had from it."""

    id: str
    name: str
    description: str
    rights: Rights
    quotas: tuple[Quota, ...]
    owner: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    usage_count: int
    # Number of the newest version.
    version: int
    # Those that work and the latest one that no longer does, the newest first; empty unless they were asked for.
    versions: tuple[KeyVersion, ...] = ()

    @property
    def prefix(self) -> str:
        """That of the newest version."""
        return self.versions[0].prefix if self.versions else ""

    def active(self, now: datetime) -> bool:
        """Whether the key may still be used."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def principal(self) -> Principal:
        """Whoever presents the key's newest secret."""
        credential = f"{KIND}:{self.versions[0].id}" if self.versions else ""
        grants = self.rights.grants
        return Principal(f"{KIND}:{self.id}", self.name, credential, self.prefix, grants, quotas=self.quotas)


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """What a caller wishes for. Without an owner the key is the caller's own."""

    name: str
    rights: Rights
    description: str = ""
    owner: str = ""
    quotas: tuple[Quota, ...] = ()
    expires_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a caller wishes to be different; None leaves it. `scopes` alone limits what the key may do already anew."""

    name: str | None = None
    description: str | None = None
    rights: Rights | None = None
    scopes: tuple[str, ...] = ()
    quotas: tuple[Quota, ...] = ()
    clear_quotas: bool = False


def narrowed(old: Rights, scopes: tuple[str, ...]) -> Rights:
    """The same permissions on other scopes; the name of their set stays. Raises ScopeInvalid for custom grants."""
    if old.custom:
        raise ScopeInvalid("This key has grants of its own, with resources in each: give new grants.", scope=scopes[0])
    new = rights.resolve("", old.permissions, scopes)
    return Rights(old.permission_set, new.permissions, new.scopes, new.grants)


def new_row(
    wish: NewApiKey, quotas: Sequence[Quota], *, owner: str, created_by: str, created_at: datetime
) -> dict[str, Any]:
    """The columns of a new key."""
    return rights_row(wish.rights) | {
        "id": new_id(),
        "name": wish.name,
        "description": wish.description,
        "quotas": rights.quotas_row(quotas),
        "owner": owner,
        "created_by": created_by,
        "bootstrap": False,
        "version": 1,
        "created_at": created_at,
        "expires_at": None if wish.expires_in is None else created_at + wish.expires_in,
        "usage_count": 0,
    }


def rights_row(held: Rights) -> dict[str, Any]:
    """The columns that say what a key may do."""
    return {
        "permission_set": held.permission_set,
        "permissions": list(held.permissions),
        "scopes": list(held.scopes),
        "grants": rights.grants_row(held.grants),
    }


def active_at(now: datetime) -> sa.ColumnElement[bool]:
    """Which keys may be used at that moment."""
    unexpired = api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > now)
    return api_keys.c.revoked_at.is_(None) & unexpired


def api_key(row: Any, versions: tuple[KeyVersion, ...] = ()) -> ApiKey:
    """The key in a row."""
    grants = rights.stored_grants(row.grants)
    return ApiKey(
        id=row.id,
        name=row.name,
        description=row.description,
        rights=Rights(row.permission_set, tuple(row.permissions), tuple(row.scopes), grants),
        quotas=rights.stored_quotas(row.quotas),
        owner=row.owner,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        usage_count=row.usage_count,
        version=row.version,
        versions=versions,
    )
