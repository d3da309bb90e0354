"""Who calls, and what they may do. Pure rules: no clock, no IO.

A grant allows or denies permissions on resources. Patterns of permissions are `*`, `models.*` or `models.read`; in
patterns of resources `*` stands for any part of one segment and `**`, as a whole segment, for any number of segments:

>>> reader = Principal("key:1", grants=(Grant("allow", ("models.read",), ("managers/fraud/**",)),))
>>> reader.allows("models.read", "managers/fraud/models/scorer")
True
>>> reader.allows("models.read", "managers/other/models/scorer")
False
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Effect = Literal["allow", "deny"]


@dataclass(frozen=True, slots=True)
class Grant:
    """One line of what a principal may do; a `deny` beats every `allow`."""

    effect: Effect
    permissions: tuple[str, ...]
    resources: tuple[str, ...]

    def covers(self, permission: str, resource: str) -> bool:
        """Whether the grant speaks about this permission on this resource."""
        return self.names(permission) and any(resource_matches(pattern, resource) for pattern in self.resources)

    def names(self, permission: str) -> bool:
        """Whether the grant speaks about this permission on some resource."""
        return any(permission_matches(pattern, permission) for pattern in self.permissions)


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `requests` of a class of use in each minute, hour or day of UTC."""

    usage_class: str
    requests: int
    per: Literal["minute", "hour", "day"]


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: `key:<id>`, `user:<id>` or, with `service` set, one of our services.

    `credential_id` is what a revocation names: of a key one version, of a user one session.
    """

    id: str
    name: str = ""
    credential_id: str = ""
    key_prefix: str = ""
    grants: tuple[Grant, ...] = ()
    service: bool = False
    # The user's role; empty for others.
    role: str = ""
    quotas: tuple[Quota, ...] = ()
    # `typ` of the token that told; empty before there is one.
    token_type: str = ""

    def allows(self, permission: str, resource: str) -> bool:
        """Whether some grant allows it and none denies it."""
        return decide(self.grants, permission, resource)

    def allows_anywhere(self, permission: str) -> bool:
        """Whether some grant allows the permission on some resource, and none denies it on all."""
        allowed = any(grant.effect == "allow" and grant.names(permission) for grant in self.grants)
        denied = any(g.effect == "deny" and g.names(permission) and "**" in g.resources for g in self.grants)
        return allowed and not denied


def decide(grants: Sequence[Grant], permission: str, resource: str) -> bool:
    """Deny by default; deny wins."""
    effects = {grant.effect for grant in grants if grant.covers(permission, resource)}
    return effects == {"allow"}


def permission_matches(pattern: str, permission: str) -> bool:
    """`*` matches every permission, `models.*` those of models, else the names must be equal."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return permission.startswith(pattern[:-1])
    return pattern == permission


@lru_cache(maxsize=65536)
def resource_matches(pattern: str, resource: str) -> bool:
    """Matches a resource path; nothing crosses a `/` but `**`."""
    return _wildcard(pattern.split("/"), resource.split("/"), star="**", matches=_segment_matches)


def _segment_matches(pattern: str, segment: str) -> bool:
    # An empty segment names nothing, so no star stands for it.
    return bool(segment) and _wildcard(pattern, segment, star="*", matches=str.__eq__)


def _wildcard(pattern: Sequence[str], text: Sequence[str], *, star: str, matches: Callable[[str, str], bool]) -> bool:
    """Whether `text` has the shape of `pattern`, in which `star` stands for any run of items.

    Only the latest star ever needs to give back, so the time is the product of both lengths whatever the pattern: a
    regular expression of the same patterns can be made to backtrack for hours.
    """
    at = done = 0
    retry: tuple[int, int] | None = None
    while done < len(text):
        if at < len(pattern) and pattern[at] == star:
            retry = (at, done)
            at += 1
        elif at < len(pattern) and matches(pattern[at], text[done]):
            at, done = at + 1, done + 1
        elif retry is not None:
            retry = (retry[0], retry[1] + 1)
            at, done = retry[0] + 1, retry[1]
        else:
            return False
    return all(item == star for item in pattern[at:])
