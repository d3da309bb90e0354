"""API keys: where they are stored, and what callers do with them."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from ulid import ULID

from services.auth import key_format, key_versions, rights
from services.auth.cover import covers
from services.auth.key_record import ApiKey, Changes, NewApiKey, active_at, api_key, narrowed, new_row, rights_row
from services.auth.key_rules import (
    MAX_LIFETIME,
    ApiKeyDoesNotExpire,
    ApiKeyInactive,
    ApiKeyRevoked,
    LifetimeTooLong,
    check_cover,
    check_creator,
    check_lifetime,
    check_quotas_covered,
    check_takeover,
    check_write,
    is_own,
    may_read,
    not_found,
    owner_of,
)
from services.auth.key_versions import KIND
from services.auth.pepper import Pepper
from services.auth.tables import api_key_makers, api_keys
from services.shared.database import Database
from services.shared.errors import PageTokenInvalid
from services.shared.identity import Grant, Principal
from services.shared.tokens import InvalidToken

# Rows read at a time while looking for those that the caller may see.
_BATCH = 500
_DEFAULT_PAGE = 100
_BY_ID = sa.select(api_keys).where(api_keys.c.id == sa.bindparam("id"))


class ApiKeys:
    """The keys of the installation.

    Args:
        unusable: whether the credential of that id has ended.
    """

    def __init__(
        self, database: Database, pepper: Pepper, clock: Callable[[], datetime], unusable: Callable[[str], bool]
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._clock = clock
        self._unusable = unusable

    def create(self, caller: Principal, wish: NewApiKey) -> tuple[ApiKey, str]:
        """Makes a key. Returns it and its text, which is kept nowhere. Limits of the caller's own use hold for it too.

        Raises:
            InvalidArgument: OWNER_INVALID or QUOTA_INVALID.
            PermissionDenied: GRANT_NOT_COVERED, QUOTA_NOT_COVERED or LIFETIME_NOT_COVERED: the caller holds less than
                it wants to give; PERMISSION_MISSING: it may not make keys for others.
        """
        check_cover(caller, wish.rights.grants)
        rights.check_quotas(wish.quotas)
        quotas = rights.merge_quotas(caller.quotas, wish.quotas)
        check_quotas_covered(caller, quotas)
        owner = owner_of(caller, wish.owner)
        secret, now = key_format.generate(), self._clock()
        row = new_row(wish, quotas, owner=owner, created_by=caller.id, created_at=now)
        with self._database.write() as connection:
            check_creator(connection, caller)
            check_lifetime(connection, caller, row["expires_at"])
            connection.execute(sa.insert(api_keys).values(row))
            key_versions.add(connection, row["id"], 1, secret.prefix, self._pepper.hash(secret.text), now)
        if self._unusable(caller.credential_id):
            # Whoever ended the caller's keys with its credential may have looked before this one was there.
            with self._database.write() as connection:
                _revoke(connection, api_keys.c.id == row["id"], now)
            raise InvalidToken
        return self.get(row["id"]), secret.text

    def get(self, key_id: str) -> ApiKey:
        """The key of that id. Raises ApiKeyNotFound."""
        with self._database.read() as connection:
            return self._read(connection, key_id)

    def show(self, caller: Principal, key_id: str) -> ApiKey:
        """The key of that id, if the caller may see it. Raises ApiKeyNotFound, alike if it may not."""
        key = self.get(key_id)
        if not may_read(caller, key):
            raise not_found(key_id)
        return key

    def page(
        self, caller: Principal, page_size: int, page_token: str, *, active_only: bool, owner: str = ""
    ) -> tuple[list[ApiKey], str]:
        """A page of the keys the caller may see, newest first, and the next page's token, empty on the last."""
        size, after = page_size or _DEFAULT_PAGE, _after(page_token)
        query = self._visible(caller, active_only=active_only, owner=owner)
        found: list[ApiKey] = []
        for key in self._newest_first(query, after):
            if may_read(caller, key):
                if len(found) == size:
                    return found, found[-1].id
                found.append(key)
        return found, ""

    def update(self, caller: Principal, key_id: str, changes: Changes) -> ApiKey:
        """Changes a key. Access tokens made with it end if it may do something else from now on.

        Raises:
            NotFound: API_KEY_NOT_FOUND.
            FailedPrecondition: API_KEY_REVOKED.
            InvalidArgument: SCOPE_INVALID, GRANTS_TOO_LARGE or QUOTA_INVALID.
            PermissionDenied: GRANT_NOT_COVERED, QUOTA_NOT_COVERED or LIFETIME_NOT_COVERED: the caller could not create
                the key, as it is or as it shall be.
        """
        rights.check_quotas(changes.quotas)
        now = self._clock()
        with self._database.write() as connection:
            key = self._locked(connection, caller, key_id)
            if key.revoked_at is not None:
                raise ApiKeyRevoked(f"The API key {key_id} is revoked: create another one.", id=key_id)
            new = changes.rights or (narrowed(key.rights, changes.scopes) if changes.scopes else key.rights)
            quotas = rights.merge_quotas(() if changes.clear_quotas else key.quotas, changes.quotas)
            check_cover(caller, key.rights.grants)
            check_cover(caller, new.grants)
            check_quotas_covered(caller, quotas)
            if not covers(key.rights.grants, new.grants):
                self._check_taken_over(connection, caller, key)
            values = {name: getattr(changes, name) for name in ("name", "description")}
            values = {name: value for name, value in values.items() if value is not None}
            if (new, quotas) != (key.rights, key.quotas):
                values |= rights_row(new) | {"quotas": rights.quotas_row(quotas)}
                key_versions.renew_ids(connection, key_id, now)
            if values:
                connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(values))
        return self.get(key_id)

    def rotate(self, caller: Principal, key_id: str, grace: timedelta) -> tuple[ApiKey, str]:
        """Gives a key a new secret. Returns the key and the secret, which is kept nowhere.

        Raises:
            NotFound: API_KEY_NOT_FOUND.
            FailedPrecondition: API_KEY_INACTIVE or API_KEY_VERSIONS_EXHAUSTED.
            PermissionDenied: PERMISSION_MISSING, GRANT_NOT_COVERED or QUOTA_NOT_COVERED, for another's key;
                LIFETIME_NOT_COVERED: the new secret would outlive the caller's, which may be one in its grace.
        """
        secret, now = key_format.generate(), self._clock()
        with self._database.write() as connection:
            key = self._locked(connection, caller, key_id)
            check_write(caller, key)
            if not is_own(caller, key):
                # Who may write keys must not become one that may do more.
                check_cover(caller, key.rights.grants)
            if not key.active(now):
                raise ApiKeyInactive(f"The API key {key_id} is revoked or has expired.", id=key_id)
            self._check_taken_over(connection, caller, key)
            number = key.version + 1
            key_versions.supersede(connection, key_id, number, now, grace)
            key_versions.add(connection, key_id, number, secret.prefix, self._pepper.hash(secret.text), now)
            connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(version=number))
        return self.get(key_id), secret.text

    def extend(self, caller: Principal, key_id: str, longer: timedelta) -> ApiKey:
        """Moves a key's end, from its expiry or from now if that has passed.

        Raises:
            NotFound: API_KEY_NOT_FOUND.
            InvalidArgument: LIFETIME_TOO_LONG.
            FailedPrecondition: API_KEY_REVOKED or API_KEY_DOES_NOT_EXPIRE.
            PermissionDenied: GRANT_NOT_COVERED or LIFETIME_NOT_COVERED.
        """
        now = self._clock()
        with self._database.write() as connection:
            key = self._locked(connection, caller, key_id)
            if key.revoked_at is not None:
                raise ApiKeyRevoked(f"The API key {key_id} is revoked: create another one.", id=key_id)
            if key.expires_at is None:
                raise ApiKeyDoesNotExpire(f"The API key {key_id} does not expire.", id=key_id)
            end = max(key.expires_at, now) + longer
            if end > now + MAX_LIFETIME:
                raise LifetimeTooLong(f"A key may expire {MAX_LIFETIME.days} days from now at the latest.")
            check_cover(caller, key.rights.grants)
            check_lifetime(connection, caller, end)
            connection.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(expires_at=end))
        return self.get(key_id)

    def revoke(self, caller: Principal, key_id: str, *, cascade: bool = False) -> ApiKey:
        """Ends a key for good, with `cascade` also the keys made or changed with it, and those made with them.

        The first revocation's moment stays.

        Raises:
            NotFound: API_KEY_NOT_FOUND.
            PermissionDenied: PERMISSION_MISSING or GRANT_NOT_COVERED, for another's key: nobody locks out who may do
                more than they.
        """
        now = self._clock()
        with self._database.write() as connection:
            key = self._locked(connection, caller, key_id)
            check_write(caller, key)
            if not is_own(caller, key):
                check_cover(caller, key.rights.grants)
            ids, seen = [key_id], {key_id}
            while ids:
                # Who makes a key holds the maker's row meanwhile: that key is seen here, or is never made.
                made_by, ids = ids[-_BATCH:], ids[:-_BATCH]
                _revoke(connection, api_keys.c.id.in_(made_by), now)
                made = set(_made_with(connection, made_by)) - seen if cascade else set()
                seen |= made
                ids += made
        return self.get(key_id)

    def revoke_owned(self, connection: sa.Connection, owner: str, beyond: Sequence[Grant] = ()) -> int:
        """Ends all keys of a principal that may do more than `beyond`, and those of theirs that do; how many. As a part
        of the caller's transaction."""
        now, owners, revoked = self._clock(), [owner], 0
        while owners:
            some, owners = owners[-_BATCH:], owners[:-_BATCH]
            rows = connection.execute(
                sa.select(api_keys.c.id, api_keys.c.grants).where(api_keys.c.owner.in_(some))
            ).all()
            ids = [row.id for row in rows if not covers(beyond, rights.stored_grants(row.grants))]
            revoked += sum(_revoke(connection, api_keys.c.id.in_(batch), now) for batch in _batches(ids))
            # A key has its owner from the start, so nobody belongs to itself in a circle.
            # Of a key that stays as well: it may have been narrowed after it made a stronger one.
            owners += [f"{KIND}:{row.id}" for row in rows]
        return revoked

    @staticmethod
    def _check_taken_over(connection: sa.Connection, caller: Principal, key: ApiKey) -> None:
        """Before the key gets more rights or a new secret: what holds for who makes one holds for the caller, and a key
        that does so is remembered as its maker."""
        check_takeover(caller, key)
        check_creator(connection, caller)
        check_lifetime(connection, caller, key.expires_at)
        kind, _, maker = caller.id.partition(":")
        if kind == KIND and maker != key.id and caller.id != key.created_by:
            row = {"key_id": key.id, "maker": caller.id}
            known = sa.select(api_key_makers.c.maker).filter_by(**row)
            if connection.scalar(known) is None:
                connection.execute(sa.insert(api_key_makers).values(row))

    def _read(self, connection: sa.Connection, key_id: str) -> ApiKey:
        row = connection.execute(_BY_ID, {"id": key_id}).one_or_none()
        if row is None:
            raise not_found(key_id)
        return api_key(row, key_versions.versions_of(connection, [key_id], self._clock()).get(key_id, ()))

    def _locked(self, connection: sa.Connection, caller: Principal, key_id: str) -> ApiKey:
        """The key, its row locked, and with it the caller's: in one order, or two keys at each other's would block."""
        ids = {key_id, caller.id.removeprefix(f"{KIND}:")}
        query = sa.select(api_keys).where(api_keys.c.id.in_(ids)).order_by(api_keys.c.id).with_for_update()
        row = next((row for row in connection.execute(query) if row.id == key_id), None)
        if row is None:
            raise not_found(key_id)
        return api_key(row)

    def _visible(self, caller: Principal, *, active_only: bool, owner: str) -> sa.Select[Any]:
        query = sa.select(api_keys).order_by(api_keys.c.id.desc()).limit(_BATCH)
        if active_only:
            query = query.where(active_at(self._clock()))
        if owner:
            query = query.where(api_keys.c.owner == owner)
        if not caller.allows_anywhere("keys.read"):
            own = (api_keys.c.owner == caller.id) | (api_keys.c.id == caller.id.removeprefix(f"{KIND}:"))
            query = query.where(own)
        return query

    def _newest_first(self, query: sa.Select[Any], after: str) -> Iterator[ApiKey]:
        while True:
            # A connection a batch: none stays open between two items of a generator.
            with self._database.read() as connection:
                rows = connection.execute(query.where(api_keys.c.id < after) if after else query).all()
                versions = key_versions.versions_of(connection, [row.id for row in rows], self._clock())
            yield from (api_key(row, versions.get(row.id, ())) for row in rows)
            if len(rows) < _BATCH:
                return
            after = rows[-1].id


def _revoke(connection: sa.Connection, which: sa.ColumnElement[bool], now: datetime) -> int:
    update = sa.update(api_keys).where(which, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    return connection.execute(update).rowcount


def _batches(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))


def _made_with(connection: sa.Connection, key_ids: list[str]) -> list[str]:
    makers = [f"{KIND}:{key_id}" for key_id in key_ids]
    made = sa.select(api_keys.c.id).where(api_keys.c.created_by.in_(makers))
    changed = sa.select(api_key_makers.c.key_id).where(api_key_makers.c.maker.in_(makers))
    return list(connection.scalars(made.union(changed)))


def _after(page_token: str) -> str:
    try:
        return str(ULID.from_str(page_token)) if page_token else ""
    except ValueError:
        raise PageTokenInvalid("ListApiKeys") from None
