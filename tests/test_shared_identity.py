"""The rules of grants, as pure functions."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.identity import Grant, Principal, decide, permission_matches, resource_matches


@pytest.mark.parametrize(
    ("pattern", "resource", "matches"),
    [
        ("**", "managers/fraud/models/scorer", True),
        ("managers/fraud/**", "managers/fraud/models/scorer", True),
        ("managers/fraud/**", "managers/fraud", True),
        ("managers/fraud/**", "managers/fraudulent/models/scorer", False),
        ("managers/*/models/scorer", "managers/fraud/models/scorer", True),
        ("managers/*", "managers/fraud/models/scorer", False),
        ("secrets/prod/*", "secrets/prod/db", True),
        ("secrets/prod/*", "secrets/prod/db/password", False),
        ("secrets/prod-*/db", "secrets/prod-eu/db", True),
        ("**/aliases/champion", "managers/m/models/n/aliases/champion", True),
        ("managers/**/champion", "managers/champion", True),
        ("keys", "keys", True),
        ("keys/*", "keys", False),
        ("keys/*", "keys/", False),
        ("keys.", "keysx", False),
        ("", "keys", False),
    ],
)
def test_resource_patterns(pattern: str, resource: str, matches: bool) -> None:
    assert resource_matches(pattern, resource) is matches


@pytest.mark.parametrize(
    ("pattern", "permission", "matches"),
    [
        ("*", "models.read", True),
        ("models.*", "models.read", True),
        ("models.*", "modelsx.read", False),
        ("models.read", "models.read", True),
        ("models.read", "models.readall", False),
        ("models", "models.read", False),
    ],
)
def test_permission_patterns(pattern: str, permission: str, matches: bool) -> None:
    assert permission_matches(pattern, permission) is matches


_segments = st.sampled_from(["a", "b", "ab", "aa", "*", "a*", "**"])
_patterns = st.lists(_segments, min_size=1, max_size=6).map("/".join)
_resources = st.lists(st.sampled_from(["a", "b", "ab", "aa", "ba"]), min_size=1, max_size=6).map("/".join)


def _reference(pattern: str, resource: str) -> bool:
    """The same rule, slow and plain: try every split."""

    def rest(patterns: list[str], segments: list[str]) -> bool:
        if not patterns:
            return not segments
        if patterns[0] == "**":
            return any(rest(patterns[1:], segments[taken:]) for taken in range(len(segments) + 1))
        expression = re.escape(patterns[0]).replace(r"\*", "[^/]*")
        return bool(segments) and bool(re.fullmatch(expression, segments[0])) and rest(patterns[1:], segments[1:])

    return rest(pattern.split("/"), resource.split("/"))


@given(_patterns, _resources)
def test_matching_agrees_with_the_plain_reference(pattern: str, resource: str) -> None:
    assert resource_matches(pattern, resource) is _reference(pattern, resource)


@given(_resources, _resources)
def test_nothing_crosses_a_slash_but_two_stars(first: str, second: str) -> None:
    assert resource_matches("*", first) is ("/" not in first)
    assert resource_matches(f"{first}/**", f"{first}/{second}")


@given(st.lists(st.tuples(st.sampled_from(["allow", "deny"]), _patterns), max_size=6), _resources)
def test_deny_wins_and_silence_denies(lines: list[tuple[str, str]], resource: str) -> None:
    grants = [Grant(effect, ("models.read",), (pattern,)) for effect, pattern in lines]
    speaking = {effect for effect, pattern in lines if _reference(pattern, resource)}
    assert decide(grants, "models.read", resource) is (speaking == {"allow"})
    assert not decide(grants, "models.write", resource)


def test_a_hostile_pattern_costs_no_time() -> None:
    pattern = "/".join(["**", "*a*a*a*a*b"] * 12)
    resource = "/".join(["a" * 40] * 40)
    started = time.perf_counter()
    assert not resource_matches(pattern, resource)
    assert time.perf_counter() - started < 1


def test_a_grant_may_except_one_thing_from_a_wide_permission() -> None:
    principal = Principal(
        "key:1",
        grants=(
            Grant("allow", ("models.alias",), ("managers/m/models/n/aliases/*",)),
            Grant("deny", ("models.alias",), ("**/aliases/champion",)),
        ),
    )
    assert principal.allows("models.alias", "managers/m/models/n/aliases/staging")
    assert not principal.allows("models.alias", "managers/m/models/n/aliases/champion")
    assert principal.allows_anywhere("models.alias")


def test_a_permission_denied_everywhere_is_held_nowhere() -> None:
    grants = (Grant("allow", ("*",), ("**",)), Grant("deny", ("secrets.*",), ("**",)))
    assert not Principal("key:1", grants=grants).allows_anywhere("secrets.list")
    assert Principal("key:1", grants=grants).allows_anywhere("models.read")
