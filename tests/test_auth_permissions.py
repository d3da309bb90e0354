"""Permission sets, and the rule that nobody gives away more than they hold."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.auth import permission_sets
from services.auth.cover import covers, resource_includes, resources_overlap
from services.shared.errors import InvalidArgument
from services.shared.identity import Effect, Grant, decide, resource_matches

_PERMISSIONS = sorted(permission_sets.PERMISSIONS)
_segments = st.text("ab", min_size=1, max_size=3)
_resources = st.lists(_segments, min_size=1, max_size=4).map("/".join)
_patterns = st.lists(st.text("ab*", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)
_permission_patterns = st.sampled_from(sorted(permission_sets.PERMISSION_PATTERNS))


def _grants(effects: tuple[Effect, ...]) -> st.SearchStrategy[Grant]:
    return st.builds(
        Grant,
        st.sampled_from(effects),
        st.lists(_permission_patterns, min_size=1, max_size=2).map(tuple),
        st.lists(_patterns, min_size=1, max_size=2).map(tuple),
    )


@given(_patterns, _patterns, _resources)
@example("a/**", "a/*", "a/b")
@example("**", "a/**/b", "a/b")
def test_what_a_pattern_includes_it_matches(outer: str, inner: str, resource: str) -> None:
    if resource_includes(outer, inner) and resource_matches(inner, resource):
        assert resource_matches(outer, resource)


@given(_patterns, _patterns, _resources)
def test_patterns_that_match_one_resource_overlap(one: str, other: str, resource: str) -> None:
    if resource_matches(one, resource) and resource_matches(other, resource):
        assert resources_overlap(one, other)
        assert resources_overlap(other, one)


@given(_patterns)
def test_a_pattern_includes_itself_and_everything_includes_it(pattern: str) -> None:
    assert resource_includes(pattern, pattern)
    assert resource_includes("**", pattern)


@given(st.lists(_grants(("allow", "deny")), max_size=3), _grants(("allow",)), st.sampled_from(_PERMISSIONS), _resources)
def test_a_covered_grant_allows_nothing_its_giver_may_not(
    held: list[Grant], new: Grant, permission: str, resource: str
) -> None:
    if covers(held, new) and decide((new,), permission, resource):
        assert decide(held, permission, resource)


@pytest.mark.parametrize(
    ("held", "given_", "expected"),
    [
        (("*", "**"), ("*", "**"), True),
        (("*", "**"), ("secrets.read", "secrets/prod/*"), True),
        (("models.*", "managers/fraud/**"), ("models.read", "managers/fraud/models/*"), True),
        (("models.*", "managers/fraud/**"), ("models.read", "managers/fraud*/models/*"), False),
        (("models.*", "managers/fraud/**"), ("models.read", "**"), False),
        (("models.read", "**"), ("models.*", "**"), False),
        (("models.*", "**"), ("*", "**"), False),
        (("models.read", "managers/*/models/x"), ("models.read", "managers/**"), False),
        (("models.read", "managers/f*"), ("models.read", "managers/fr*d"), True),
        (("models.read", "managers/f*d"), ("models.read", "managers/f*"), False),
    ],
)
def test_cover(held: tuple[str, str], given_: tuple[str, str], expected: bool) -> None:
    assert covers((_allow(*held),), _allow(*given_)) is expected


def test_a_denial_that_touches_the_new_grant_forbids_it() -> None:
    held = (_allow("*", "**"), Grant("deny", ("models.write",), ("managers/prod/**",)))
    assert not covers(held, _allow("models.*", "managers/*/models/x"))
    assert covers(held, _allow("models.read", "**"))
    assert covers(held, _allow("models.write", "managers/dev/**"))


def test_many_long_hostile_patterns_are_compared_in_bounded_time() -> None:
    held = (Grant("allow", ("*",), tuple("*a" * 255 + "b" for _ in range(8))),)
    assert not covers(held, Grant("allow", ("models.read",), ("a" * 512,)))


@pytest.mark.row("S2.4")
@pytest.mark.parametrize(
    ("name", "may", "may_not"),
    [
        (
            "read_only",
            "models.read configs.read artifacts.read jobs.read",
            "models.write ml.predict secrets.list keys.read",
        ),
        ("training_pipeline", "models.write configs.write ml.train", "ml.predict models.delete secrets.read keys.read"),
        ("prefect_workflows", "models.delete models.alias ml.train ml.predict secrets.read", "secrets.write keys.read"),
        ("full_access", "keys.write secrets.delete system.maintain users.write audit.read", ""),
        ("train", "models.read models.write ml.train jobs.cancel", "ml.predict models.delete secrets.read keys.read"),
        ("predict", "models.read ml.predict artifacts.write", "ml.train models.write secrets.read keys.read"),
    ],
)
def test_permission_sets(name: str, may: str, may_not: str) -> None:
    grant = permission_sets.resolve(name, (), ())
    assert grant == Grant("allow", permission_sets.PERMISSION_SETS[name].permissions, ("**",))
    assert all(grant.names(permission) for permission in may.split())
    assert not any(grant.names(permission) for permission in may_not.split())
    assert set(grant.permissions) <= permission_sets.PERMISSION_PATTERNS


def test_an_unnamed_credential_uses_the_product_and_administers_nothing() -> None:
    grant = Grant("allow", permission_sets.UNNAMED.permissions, ("**",))
    named = {permission.partition(".")[0] for permission in permission_sets.PERMISSIONS if grant.names(permission)}
    assert named == {"models", "configs", "artifacts", "jobs", "ml"}


@pytest.mark.parametrize(
    ("permission_set", "permissions", "scopes", "reason"),
    [
        ("nonsense", (), (), "PERMISSION_SET_UNKNOWN"),
        ("", (), (), "PERMISSIONS_REQUIRED"),
        ("read_only", ("models.read",), (), "PERMISSIONS_REQUIRED"),
        ("", ("models.fly",), (), "PERMISSION_UNKNOWN"),
        ("read_only", (), ("managers//x",), "SCOPE_INVALID"),
        ("read_only", (), ("/managers",), "SCOPE_INVALID"),
    ],
)
def test_a_senseless_wish_is_refused(
    permission_set: str, permissions: tuple[str, ...], scopes: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        permission_sets.resolve(permission_set, permissions, scopes)
    assert caught.value.error_reason == reason


def _allow(permission: str, resource: str) -> Grant:
    return Grant("allow", (permission,), (resource,))
