"""Who may do what with an API key, beyond what the access rules of the methods say.

A key must never be a way to more than its maker holds: more rights, a longer life, or use beyond a quota.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from services.auth import key_versions
from services.auth.cover import covers
from services.auth.key_record import ApiKey
from services.auth.key_versions import KIND
from services.auth.rights import quotas_cover
from services.auth.tables import api_keys
from services.shared.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, PermissionMissing
from services.shared.identity import Grant, Principal, Quota
from services.shared.tokens import InvalidToken

MAX_LIFETIME = timedelta(days=3650)
# Who may own a key, as principals are named.
_OWNER = re.compile(r"(user|key|static|token|oidc|jwt|aws):[!-~]+")


class ApiKeyNotFound(NotFound):
    reason = "API_KEY_NOT_FOUND"


class ApiKeyRevoked(FailedPrecondition):
    reason = "API_KEY_REVOKED"


class ApiKeyInactive(FailedPrecondition):
    reason = "API_KEY_INACTIVE"


class ApiKeyDoesNotExpire(FailedPrecondition):
    reason = "API_KEY_DOES_NOT_EXPIRE"


class GrantNotCovered(PermissionDenied):
    reason = "GRANT_NOT_COVERED"


class QuotaNotCovered(PermissionDenied):
    reason = "QUOTA_NOT_COVERED"


class LifetimeNotCovered(PermissionDenied):
    reason = "LIFETIME_NOT_COVERED"


class LifetimeTooLong(InvalidArgument):
    reason = "LIFETIME_TOO_LONG"


class OwnerInvalid(InvalidArgument):
    reason = "OWNER_INVALID"


def not_found(key_id: str) -> ApiKeyNotFound:
    """The one answer about a key that is not there or that the caller may not know of."""
    return ApiKeyNotFound(f"There is no API key {key_id}.", id=key_id)


def is_own(caller: Principal, key: ApiKey) -> bool:
    """Whether the caller is the key or its owner."""
    return caller.id in (key.owner, f"{KIND}:{key.id}")


def may_read(caller: Principal, key: ApiKey) -> bool:
    """Whether the caller may see the key."""
    return is_own(caller, key) or caller.allows("keys.read", f"keys/{key.id}")


def check_write(caller: Principal, key: ApiKey) -> None:
    """Raises PermissionDenied for another's key without `keys.write`; ApiKeyNotFound if it may not even be seen."""
    if is_own(caller, key) or caller.allows("keys.write", f"keys/{key.id}"):
        return
    if not may_read(caller, key):
        raise not_found(key.id)
    raise PermissionMissing("keys.write", f"keys/{key.id}")


def check_cover(caller: Principal, given: Sequence[Grant]) -> None:
    """Raises GrantNotCovered if the grants allow something that the caller may not do."""
    if not covers(caller.grants, given):
        raise GrantNotCovered(
            "The key would be allowed more than you are. Ask for fewer permissions or narrower scopes, and for every "
            "denial that you are under."
        )


def check_quotas_covered(caller: Principal, given: Sequence[Quota]) -> None:
    """Raises QuotaNotCovered if the caller could escape its own quotas by the key."""
    if not quotas_cover(caller.quotas, given):
        raise QuotaNotCovered("The key would be allowed more use than you are: every quota of yours must limit it too.")


def check_takeover(caller: Principal, key: ApiKey) -> None:
    """Raises QuotaNotCovered if a caller under a quota would take over a key whose use is not taken from that quota."""
    if caller.quotas and not is_own(caller, key) and key.created_by != caller.id:
        raise QuotaNotCovered("Your use is limited, so you may change only your own keys and those made with yours.")


def check_lifetime(connection: sa.Connection, caller: Principal, expires: datetime | None) -> None:
    """A secret that ends must not renew itself: who found it would keep what it opens for ever.

    Raises LifetimeNotCovered if `expires`, None for never, is later than the end of the caller's own key, or of its
    secret's grace.
    """
    kind, _, _ = caller.credential_id.partition(":")
    own = key_versions.end_of(connection, caller.credential_id) if kind == KIND else None
    if own is not None and (expires is None or expires > own):
        raise LifetimeNotCovered(
            f"The key you use ends at {own:%Y-%m-%d %H:%M} UTC; what you make with it must not outlive it."
        )


def check_creator(connection: sa.Connection, caller: Principal) -> None:
    """Holds the row of the key that makes another, until the end of the transaction.

    Raises InvalidToken if it was revoked or changed since it was let in: revoking a key with all that were made with it
    must miss none.
    """
    kind, _, key_id = caller.id.partition(":")
    if kind == KIND:
        connection.execute(sa.select(api_keys.c.id).where(api_keys.c.id == key_id).with_for_update())
        if key_versions.ended(connection, caller.credential_id):
            raise InvalidToken


def owner_of(caller: Principal, wished: str) -> str:
    """Whose a new key is. Raises OwnerInvalid, and PermissionDenied without `users.write` for somebody else."""
    if wished in ("", caller.id):
        return caller.id
    if not caller.allows("users.write", "users"):
        raise PermissionMissing("users.write", "users")
    if not _OWNER.fullmatch(wished):
        raise OwnerInvalid("An owner is a principal such as user:01J…, key:01J… or static:NAME.")
    return wished
