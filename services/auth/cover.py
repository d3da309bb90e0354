"""Whether one set of grants covers another: nobody gives away more than they hold. Pure rules.

Both answers err on the safe side: `covers` may say no where a cleverer proof would say yes, never the reverse. The
tests hold it against `identity.decide` on random resources.

>>> held = (Grant("allow", ("models.*",), ("managers/fraud/**",)),)
>>> covers(held, Grant("allow", ("models.read",), ("managers/fraud/models/*",)))
True
>>> covers(held, Grant("allow", ("models.read",), ("managers/**",)))
False
"""

from collections.abc import Callable, Sequence

from services.shared.identity import Grant, permission_matches

_ONE_SEGMENT, _ANY_SEGMENTS = "*", "**"


def covers(held: Sequence[Grant], given: Grant) -> bool:
    """Whether every permission that `given` allows on a resource is allowed by `held` on that resource.

    A deny in `held` that touches `given` anywhere means no: the new grant would not carry it along.
    """
    if any(deny.effect == "deny" and _touches(deny, given) for deny in held):
        return False
    for resource in given.resources:
        allows = [
            g for g in held if g.effect == "allow" and any(resource_includes(outer, resource) for outer in g.resources)
        ]
        patterns = {pattern for grant in allows for pattern in grant.permissions}
        if not all(any(_permission_includes(outer, inner) for outer in patterns) for inner in given.permissions):
            return False
    return True


def resource_includes(outer: str, inner: str) -> bool:
    """Whether `outer` matches whatever the pattern `inner` matches, among resources without empty segments."""
    return _includes(outer.split("/"), inner.split("/"), _ANY_SEGMENTS, _segment_includes)


def resources_overlap(one: str, other: str) -> bool:
    """Whether some resource may match both patterns."""
    return _overlap(one.split("/"), other.split("/"), _ANY_SEGMENTS, _segments_overlap)


def _permission_includes(outer: str, inner: str) -> bool:
    # Seen as a permission, `models.*` is matched by itself and `*` alone: exactly the patterns that include it.
    return permission_matches(outer, inner)


def _touches(deny: Grant, given: Grant) -> bool:
    permissions = any(
        _permission_includes(one, other) or _permission_includes(other, one)
        for one in deny.permissions
        for other in given.permissions
    )
    return permissions and any(resources_overlap(one, other) for one in deny.resources for other in given.resources)


def _segment_includes(outer: str, inner: str) -> bool:
    # A run of segments is included by nothing that stays within one.
    return inner != _ANY_SEGMENTS and _includes(outer, inner, _ONE_SEGMENT, str.__eq__)


def _segments_overlap(one: str, other: str) -> bool:
    return _overlap(one, other, _ONE_SEGMENT, str.__eq__)


def _includes(outer: Sequence[str], inner: Sequence[str], wildcard: str, includes: Callable[[str, str], bool]) -> bool:
    """Matches `inner`, its wildcards taken for symbols that nothing but a wildcard of `outer` takes in. Whatever they
    stand for, that one matches it too, so a match proves inclusion. Greedy: returning to the latest wildcard
    suffices."""
    at_outer = at_inner = resume = 0
    star = -1
    while at_inner < len(inner):
        if at_outer < len(outer) and outer[at_outer] == wildcard:
            star, resume = at_outer, at_inner
            at_outer += 1
        elif at_outer < len(outer) and includes(outer[at_outer], inner[at_inner]):
            at_outer += 1
            at_inner += 1
        elif star >= 0:
            resume += 1
            at_outer, at_inner = star + 1, resume
        else:
            return False
    return all(symbol == wildcard for symbol in outer[at_outer:])


def _overlap(one: Sequence[str], other: Sequence[str], wildcard: str, meet: Callable[[str, str], bool]) -> bool:
    """Whether the two patterns share a match, row by row over their prefixes."""
    row = [True]
    for symbol in other:
        row.append(row[-1] and symbol == wildcard)
    for left in one:
        above, row = row, [row[0] and left == wildcard]
        for index, right in enumerate(other):
            wild = wildcard in (left, right)
            row.append(above[index + 1] or row[index] if wild else above[index] and meet(left, right))
    return row[-1]
