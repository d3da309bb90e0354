"""Whether one set of grants covers another: nobody gives away more than they hold. Pure rules.

Both answers err on the safe side: `covers` may say no where a cleverer proof would say yes, never the reverse. The
tests hold it against `identity.decide` on random resources.

>>> held = (Grant("allow", ("models.*",), ("managers/fraud/**",)),)
>>> covers(held, [Grant("allow", ("models.read",), ("managers/fraud/models/*",))])
True
>>> covers(held, [Grant("allow", ("models.read",), ("managers/**",))])
False
"""

from collections.abc import Sequence
from itertools import product

from services.shared.identity import Grant, permission_matches

_ONE_SEGMENT, _ANY_SEGMENTS = "*", "**"


def covers(held: Sequence[Grant], given: Sequence[Grant]) -> bool:
    """Whether everything that `given` allows on a resource is allowed by `held` on that resource.

    A deny in `held` that touches an allow of `given` must be among the denies of `given`, for what it touches.
    """
    allows, denies = _lines(held, "allow"), _lines(held, "deny")
    kept = _lines(given, "deny")
    return all(
        _allowed(allows, wanted) and all(_denied_as_well(deny, wanted, kept) for deny in denies)
        for wanted in _lines(given, "allow")
    )


def _lines(grants: Sequence[Grant], effect: str) -> list[Grant]:
    return [grant for grant in grants if grant.effect == effect]


def _allowed(allows: Sequence[Grant], wanted: Grant) -> bool:
    for resource in wanted.resources:
        outer = [grant for grant in allows if any(resource_includes(pattern, resource) for pattern in grant.resources)]
        patterns = {pattern for grant in outer for pattern in grant.permissions}
        if not all(any(_permission_includes(pattern, inner) for pattern in patterns) for inner in wanted.permissions):
            return False
    return True


def _denied_as_well(deny: Grant, wanted: Grant, kept: Sequence[Grant]) -> bool:
    """Whether `kept` denies whatever `deny` denies of `wanted`."""
    # Two permission patterns have nothing in common, or one of them is what they have in common.
    shared = {
        inner
        for one, other in product(deny.permissions, wanted.permissions)
        for outer, inner in ((one, other), (other, one))
        if _permission_includes(outer, inner)
    }
    if not shared:
        return True
    overlaps = [pair for pair in product(deny.resources, wanted.resources) if resources_overlap(*pair)]
    return all(any(_denies(grant, permission, *pair) for grant in kept) for permission in shared for pair in overlaps)


def _denies(grant: Grant, permission: str, one: str, other: str) -> bool:
    """Whether a deny holds for the permission wherever both patterns match: it does if it includes either."""
    return any(_permission_includes(pattern, permission) for pattern in grant.permissions) and any(
        resource_includes(pattern, one) or resource_includes(pattern, other) for pattern in grant.resources
    )


def resource_includes(outer: str, inner: str) -> bool:
    """Whether `outer` matches whatever the pattern `inner` matches, among resources without empty segments."""
    return _includes(outer.split("/"), inner.split("/"))


def resources_overlap(one: str, other: str) -> bool:
    """Whether some resource may match both patterns."""
    return _overlap(one.split("/"), other.split("/"))


def _permission_includes(outer: str, inner: str) -> bool:
    # Seen as a permission, `models.*` is matched by itself and `*` alone: exactly the patterns that include it.
    return permission_matches(outer, inner)


def _segment_includes(outer: str, inner: str) -> bool:
    # A run of segments is included by nothing that stays within one.
    return inner != _ANY_SEGMENTS and _text_includes(outer, inner)


def _text_includes(outer: str, inner: str) -> bool:
    """`_includes` for the characters of one segment, by searches: a step for each would be felt in long ones."""
    head, *rest = outer.split(_ONE_SEGMENT)
    if not rest:
        return outer == inner
    *middle, tail = rest
    if not (inner.startswith(head) and inner.endswith(tail)):
        return False
    at, end = len(head), len(inner) - len(tail)
    for piece in middle:
        found = inner.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return at <= end


def _segments_overlap(one: str, other: str) -> bool:
    if _ONE_SEGMENT not in one:
        return _text_includes(other, one)
    if _ONE_SEGMENT not in other:
        return _text_includes(one, other)
    # What stands between the stars of one can stand where the other has a star: only the ends can clash.
    (head, _, _), (_, _, tail) = one.partition(_ONE_SEGMENT), one.rpartition(_ONE_SEGMENT)
    (other_head, _, _), (_, _, other_tail) = other.partition(_ONE_SEGMENT), other.rpartition(_ONE_SEGMENT)
    heads = head.startswith(other_head) or other_head.startswith(head)
    return heads and (tail.endswith(other_tail) or other_tail.endswith(tail))


def _includes(outer: Sequence[str], inner: Sequence[str]) -> bool:
    """Matches `inner`, its wildcards taken for symbols that nothing but a wildcard of `outer` takes in. Whatever they
    stand for, that one matches it too, so a match proves inclusion. Greedy: returning to the latest wildcard
    suffices."""
    at_outer = at_inner = resume = 0
    star = -1
    while at_inner < len(inner):
        if at_outer < len(outer) and outer[at_outer] == _ANY_SEGMENTS:
            star, resume = at_outer, at_inner
            at_outer += 1
        elif at_outer < len(outer) and _segment_includes(outer[at_outer], inner[at_inner]):
            at_outer += 1
            at_inner += 1
        elif star >= 0:
            resume += 1
            at_outer, at_inner = star + 1, resume
        else:
            return False
    return all(symbol == _ANY_SEGMENTS for symbol in outer[at_outer:])


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether the two patterns share a match, row by row over their prefixes."""
    row = [True]
    for symbol in other:
        row.append(row[-1] and symbol == _ANY_SEGMENTS)
    for left in one:
        above, row = row, [row[0] and left == _ANY_SEGMENTS]
        for index, right in enumerate(other):
            wild = _ANY_SEGMENTS in (left, right)
            row.append(above[index + 1] or row[index] if wild else above[index] and _segments_overlap(left, right))
    return row[-1]
