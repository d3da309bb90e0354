"""Permission sets, and the rule that nobody gives away more than they hold."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.auth import permission_sets
from services.auth.cover import covers, resource_includes, resources_overlap
from services.auth.rights import merge_quotas, quotas_cover, resolve
from services.shared.errors import InvalidArgument
from services.shared.identity import Effect, Grant, Principal, Quota, decide, resource_matches
from tests.serving import make_token_maker

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


_lines = st.lists(_grants(("allow", "deny")), max_size=3)


@given(_lines, _lines, st.sampled_from(_PERMISSIONS), _resources)
def test_covered_grants_allow_nothing_their_giver_may_not(
    held: list[Grant], new: list[Grant], permission: str, resource: str
) -> None:
    if covers(held, new) and decide(new, permission, resource):
        assert decide(held, permission, resource)


@given(_lines)
def test_grants_cover_themselves_and_any_with_more_denied(held: list[Grant]) -> None:
    assert covers(held, held)
    assert covers(held, [*held, Grant("deny", ("*",), ("a/**",))])


@given(_lines, _lines, _lines)
def test_what_a_chain_of_keys_gives_away_its_first_held(one: list[Grant], two: list[Grant], three: list[Grant]) -> None:
    """Not that covering is transitive, it errs on the safe side: that a chain of it never widens."""
    if covers(one, two) and covers(two, three):
        for permission in ("models.read", "keys.write"):
            for resource in ("a", "a/b", "ab/a/b", "b/ba"):
                assert not decide(three, permission, resource) or decide(one, permission, resource)


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
    assert covers((_allow(*held),), [_allow(*given_)]) is expected


def test_a_denial_that_touches_the_new_grant_forbids_it() -> None:
    held = (_allow("*", "**"), Grant("deny", ("models.write",), ("managers/prod/**",)))
    assert not covers(held, [_allow("models.*", "managers/*/models/x")])
    assert covers(held, [_allow("models.read", "**")])
    assert covers(held, [_allow("models.write", "managers/dev/**")])


@pytest.mark.parametrize(
    ("deny", "covered"),
    [
        (("models.write", "managers/prod/**"), True),
        (("models.*", "managers/**"), True),
        (("*", "**"), True),
        # The denial is needed on what the new grant may touch alone.
        (("models.write", "managers/*/models/x"), True),
        (("models.read", "managers/prod/**"), False),
        (("models.write", "managers/prod/models/y"), False),
        (("secrets.*", "**"), False),
    ],
)
def test_a_denial_may_be_handed_on(deny: tuple[str, str], covered: bool) -> None:
    held = (_allow("*", "**"), Grant("deny", ("models.write",), ("managers/prod/**",)))
    new = [_allow("models.*", "managers/*/models/x"), Grant("deny", (deny[0],), (deny[1],))]
    assert covers(held, new) is covered


ANY_ALIAS_BUT_CHAMPION = (
    Grant("allow", ("models.alias",), ("managers/*/models/*/aliases/*",)),
    Grant("deny", ("models.alias",), ("managers/*/models/*/aliases/champion",)),
)


def test_any_alias_but_champion_can_be_said() -> None:
    model = "managers/fraud/models/scorer"
    assert decide(ANY_ALIAS_BUT_CHAMPION, "models.alias", f"{model}/aliases/challenger")
    assert decide(ANY_ALIAS_BUT_CHAMPION, "models.alias", f"{model}/aliases/champion-2")
    assert not decide(ANY_ALIAS_BUT_CHAMPION, "models.alias", f"{model}/aliases/champion")
    assert not decide(ANY_ALIAS_BUT_CHAMPION, "models.alias", f"{model}/aliases/champion/x")
    assert not decide(ANY_ALIAS_BUT_CHAMPION, "models.write", model)
    assert not covers(ANY_ALIAS_BUT_CHAMPION, ANY_ALIAS_BUT_CHAMPION[:1])
    assert covers(ANY_ALIAS_BUT_CHAMPION, ANY_ALIAS_BUT_CHAMPION)


def test_many_long_hostile_patterns_are_compared_in_bounded_time() -> None:
    """As large as a key's grants may be, on both sides."""
    patterns = tuple("a*" * count + "b" for count in range(100, 116))
    segments = tuple("**/a/" * 15 + f"b{count}" for count in range(100))
    for resources in (patterns, segments):
        made = resolve(grants=(Grant("allow", ("*",), resources[:60]), Grant("deny", ("*",), resources[:30])))
        started = time.process_time()
        covers(made.grants, [_allow("models.read", resource + "c") for resource in resources])
        covers(made.grants, made.grants)
        assert time.process_time() - started < 10


def test_what_would_not_fit_into_a_token_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve(permissions=("models.read",), scopes=tuple(f"managers/{'x' * 200}{n}" for n in range(64)))
    assert caught.value.error_reason == "GRANTS_TOO_LARGE"
    held = resolve(permissions=("*",), scopes=tuple(f"managers/é{'x' * 100}{n}" for n in range(60)))
    grants, name = held.grants, "\N{GRINNING FACE}" * 255
    quotas = tuple(Quota(kind, 10**9, "minute") for kind in ("train", "predict", "upload", "other"))
    token = make_token_maker().token(
        "models", Principal(f"key:{'0' * 26}", name, "key:x", "12345678", grants, quotas=quotas)
    )
    assert len(token) < 32_768


def test_a_pattern_of_very_many_segments_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve(permissions=("models.read",), scopes=("a/" * 32 + "a",))
    assert caught.value.error_reason == "SCOPE_INVALID"


_quotas = st.builds(
    Quota,
    st.sampled_from(["train", "predict"]),
    st.integers(1, 10**6),
    st.sampled_from(["minute", "hour", "day"]),  # type: ignore[arg-type]
)


@given(_quotas, _quotas)
def test_a_covered_quota_allows_no_more_in_any_period(held: Quota, new: Quota) -> None:
    seconds = {"minute": 60, "hour": 3600, "day": 86400}
    if held.usage_class == new.usage_class and quotas_cover([held], [new]):
        for period in seconds.values():
            most = [quota.requests * -(-period // seconds[quota.per]) for quota in (held, new)]
            assert most[1] <= most[0]
    assert quotas_cover([held], [held])
    assert not quotas_cover([held], [])
    assert quotas_cover([], [new])


def test_merged_quotas_replace_by_class() -> None:
    ten, five, other = Quota("train", 10, "day"), Quota("train", 5, "hour"), Quota("predict", 1, "minute")
    assert merge_quotas([ten], [five, other]) == (other, five)
    assert merge_quotas([ten], []) == (ten,)


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
