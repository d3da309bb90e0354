"""What a key may do and how often: as it is asked for, and written out as grants and quotas. Pure rules."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from services.auth import permission_sets
from services.auth.permission_sets import PermissionsRequired, ScopeInvalid
from services.shared.errors import InvalidArgument
from services.shared.identity import Effect, Grant, Quota

# Grants travel in a token, and a token in a header: of the 32 KiB that a service reads of one they may fill a third, so
# that a name of 255 characters of any script and Base64 still fit. Comparing two keys takes the product of both sizes.
_MAX_GRANTS_BYTES = 8192
_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}


class GrantsTooLarge(InvalidArgument):
    reason = "GRANTS_TOO_LARGE"


class QuotaInvalid(InvalidArgument):
    reason = "QUOTA_INVALID"


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do. `permissions` and `scopes` are as they were asked for, `grants` is everything, written out.

    Of a key with custom grants the first three are empty.
    """

    permission_set: str
    permissions: tuple[str, ...]
    scopes: tuple[str, ...]
    grants: tuple[Grant, ...]

    @property
    def custom(self) -> bool:
        return not self.permissions


def resolve(
    permission_set: str = "",
    permissions: tuple[str, ...] = (),
    scopes: tuple[str, ...] = (),
    grants: tuple[Grant, ...] = (),
) -> Rights:
    """The rights that a request describes, by a set, by permissions on scopes or by grants: exactly one of the three.

    Raises:
        InvalidArgument: PERMISSIONS_REQUIRED, PERMISSION_SET_UNKNOWN, PERMISSION_UNKNOWN, SCOPE_INVALID or
            GRANTS_TOO_LARGE.
    """
    if grants:
        if permission_set or permissions:
            raise PermissionsRequired("Give either permission_set, permissions or grants.")
        made = Rights("", (), (), _custom(scopes, grants))
    else:
        grant = permission_sets.resolve(permission_set, permissions, scopes)
        made = Rights(permission_set, grant.permissions, tuple(dict.fromkeys(scopes)), (grant,))
    if len(json.dumps(grants_row(made.grants), separators=(",", ":"))) > _MAX_GRANTS_BYTES:
        raise GrantsTooLarge(
            f"All permissions and resources of a key must fit into {_MAX_GRANTS_BYTES} bytes. Write fewer patterns."
        )
    return made


def _custom(scopes: tuple[str, ...], grants: tuple[Grant, ...]) -> tuple[Grant, ...]:
    if scopes:
        raise ScopeInvalid("Grants name their own resources: leave out the scopes.", scope=scopes[0])
    for grant in grants:
        permission_sets.check_permissions(grant.permissions)
        permission_sets.check_scopes(grant.resources)
    if not any(grant.effect == "allow" for grant in grants):
        raise PermissionsRequired("Grants that only deny allow nothing: add one with the effect `allow`.")
    return tuple(dict.fromkeys(grants))


def check_quotas(quotas: Sequence[Quota]) -> None:
    """Raises QuotaInvalid if a class of use is named twice."""
    classes = [quota.usage_class for quota in quotas]
    if len(set(classes)) < len(classes):
        raise QuotaInvalid("Give at most one quota for a class of use.")


def merge_quotas(base: Sequence[Quota], over: Sequence[Quota]) -> tuple[Quota, ...]:
    """The base, with those of its classes replaced and those added that `over` names; by class."""
    merged = {quota.usage_class: quota for quota in (*base, *over)}
    return tuple(merged[usage_class] for usage_class in sorted(merged))


def quotas_cover(held: Sequence[Quota], given: Sequence[Quota]) -> bool:
    """Whether each class that `held` limits is limited by `given`, to no more at once and no more over time."""
    limits = {quota.usage_class: quota for quota in given}
    return all(
        (new := limits.get(old.usage_class)) is not None
        and new.requests <= old.requests
        and new.requests * _SECONDS[old.per] <= old.requests * _SECONDS[new.per]
        for old in held
    )


def grants_row(grants: Sequence[Grant]) -> list[Any]:
    """Grants as they are stored and as they stand in tokens."""
    return [[grant.effect, list(grant.permissions), list(grant.resources)] for grant in grants]


def stored_grants(row: Sequence[Any]) -> tuple[Grant, ...]:
    """Back from `grants_row`."""
    return tuple(
        Grant(cast("Effect", effect), tuple(permissions), tuple(resources)) for effect, permissions, resources in row
    )


def quotas_row(quotas: Sequence[Quota]) -> list[Any]:
    """Quotas as they are stored."""
    return [[quota.usage_class, quota.requests, quota.per] for quota in quotas]


def stored_quotas(row: Sequence[Any]) -> tuple[Quota, ...]:
    """Back from `quotas_row`."""
    return tuple(Quota(*quota) for quota in row)
