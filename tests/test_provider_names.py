"""Names of secrets where providers have no room for them: no two share a place, and each is found again."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.secrets.providers import azure, gcp
from services.secrets.providers.names import Below, Spelling
from services.secrets.providers.provider import NameUnusable

pytestmark = pytest.mark.row("S4.2")

_NAMES = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,6}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,6}){0,3}", fullmatch=True)
_SPELLINGS = pytest.mark.parametrize(
    ("spelling", "taken"),
    [(gcp._SPELLING, r"[A-Za-z0-9_-]{1,255}"), (azure._SPELLING, r"[a-z0-9-]{1,127}")],
    ids=["gcp", "azure"],
)


@_SPELLINGS
@given(name=_NAMES)
def test_name_is_found_again_and_the_provider_takes_it(spelling: Spelling, taken: str, name: str) -> None:
    spelt = spelling.spell(name)
    assert re.fullmatch(taken, spelt)
    assert spelling.read(spelt) == name


@_SPELLINGS
@given(one=_NAMES, other=_NAMES)
def test_no_two_names_share_a_place(spelling: Spelling, taken: str, one: str, other: str) -> None:
    assert (spelling.spell(one) == spelling.spell(other)) == (one == other)


@_SPELLINGS
@given(spelt=st.text(alphabet="abcdmuA_-/.0", max_size=12))
def test_what_others_named_is_read_as_one_name_or_none(spelling: Spelling, taken: str, spelt: str) -> None:
    name = spelling.read(spelt)
    assert name is None or spelling.spell(name) == spelt


@_SPELLINGS
def test_name_without_room_is_refused(spelling: Spelling, taken: str) -> None:
    with pytest.raises(NameUnusable):
        spelling.spell("a/" * 128)


def test_names_beside_the_prefix_are_not_ours() -> None:
    below = Below("team/one")
    assert below.own(below.full("prod/db")) == "prod/db"
    assert below.own("team/other/prod/db") is None
    assert below.own("team/one") is None
    assert Below("").own("prod/db") == "prod/db"
