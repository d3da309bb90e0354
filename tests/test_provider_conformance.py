"""What a provider of secrets promises: the embedded one, and each of the others on its server."""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.secrets.providers.provider import SecretProvider
from services.shared.errors import Aborted, AlreadyExists, DomainError, InvalidArgument, NotFound
from tests.provider_kinds import KINDS, new_provider

pytestmark = pytest.mark.row("S4.2")

PLANTED = "correct-horse-battery-staple-4711"
_VALUES = {
    "text": {"user": "scorer", "password": PLANTED},
    "structured": {"hosts": ["a", "b"], "port": 5432, "tls": True, "limit": None, "share": 0.25, "deep": {"a": [{}]}},
    "beyond ASCII": {"pässwörd": "日本語 \U0001f511 \" ' \\ \n\t\u0000"},
    "nothing": {},
}


@pytest.fixture(scope="module", params=KINDS)
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SecretProvider:
    return new_provider(request.param, request, tmp_path_factory.mktemp("provider"))


@pytest.fixture
def name() -> str:
    return f"prod/db-{secrets.token_hex(4)}"


def _refused(kind: type[DomainError], call: Callable[[], object]) -> str:
    """The reason; what is told has no word of a value."""
    with pytest.raises(kind) as caught:
        call()
    assert PLANTED not in f"{caught.value!r} {caught.value.metadata}"
    return caught.value.error_reason


def test_it_answers(provider: SecretProvider) -> None:
    provider.check()


@pytest.mark.parametrize("data", _VALUES.values(), ids=_VALUES)
def test_value_comes_back_as_it_was(provider: SecretProvider, name: str, data: dict[str, object]) -> None:
    written = provider.put(name, data)
    found = provider.get(name)
    assert found.data == data
    assert found.about.revision == written.revision
    assert PLANTED not in repr(found)


def test_each_write_adds_a_version_that_can_be_read(provider: SecretProvider, name: str) -> None:
    revisions = [provider.put(name, {"n": n}).revision for n in range(3)]
    assert len(set(revisions)) == 3
    assert provider.get(name).data == {"n": 2}
    assert [provider.get(name, revision).data for revision in revisions] == [{"n": 0}, {"n": 1}, {"n": 2}]
    versions = provider.versions(name)
    assert versions[0].revision == revisions[2]
    assert {version.revision for version in versions} == set(revisions)
    assert all(version.created_at is not None for version in versions)


def test_what_is_not_there_is_told(provider: SecretProvider, name: str) -> None:
    assert _refused(NotFound, lambda: provider.get(name)) == "SECRET_NOT_FOUND"
    assert _refused(NotFound, lambda: provider.versions(name)) == "SECRET_NOT_FOUND"
    assert not provider.delete(name)
    provider.put(name, {"password": PLANTED})
    for revision in ("999", secrets.token_hex(16), "no-such"):
        assert _refused(NotFound, lambda revision=revision: provider.get(name, revision)) == "SECRET_VERSION_NOT_FOUND"


def test_write_that_expects_none_creates(provider: SecretProvider, name: str) -> None:
    provider.put(name, {"password": PLANTED}, expected="")
    assert _refused(AlreadyExists, lambda: provider.put(name, {"n": 2}, expected="")) == "SECRET_EXISTS"
    assert provider.get(name).data == {"password": PLANTED}


def test_write_follows_the_version_it_expects(provider: SecretProvider, name: str) -> None:
    first = provider.put(name, {"n": 1})
    second = provider.put(name, {"n": 2}, expected=first.revision)
    assert provider.get(name).data == {"n": 2}
    assert _refused(Aborted, lambda: provider.put(name, {"x": PLANTED}, expected=first.revision)) == "VERSION_MISMATCH"
    assert _refused(Aborted, lambda: provider.put(name, {"n": 3}, expected="no-such")) == "VERSION_MISMATCH"
    assert provider.get(name).about.revision == second.revision
    assert provider.get(name).data == {"n": 2}
    provider.put(name, {"n": 3}, expected=second.revision)
    assert provider.get(name).data == {"n": 3}


def test_write_that_expects_a_version_creates_nothing(provider: SecretProvider, name: str) -> None:
    assert _refused(Aborted, lambda: provider.put(name, {"n": 1}, expected="1")) == "VERSION_MISMATCH"
    assert _refused(NotFound, lambda: provider.get(name)) == "SECRET_NOT_FOUND"


def test_names_are_listed_by_how_they_begin(provider: SecretProvider) -> None:
    folder = f"list-{secrets.token_hex(4)}"
    names = {f"{folder}/a", f"{folder}/a/b", f"{folder}/a-b", f"{folder}/a_b.c", f"{folder}/B/c", f"{folder}/b"}
    for each in names | {f"{folder}x"}:
        provider.put(each, {"name": each})
    assert sorted(provider.list(f"{folder}/")) == sorted(names)
    assert set(provider.list(folder)) == names | {f"{folder}x"}
    assert set(provider.list(f"{folder}/a")) == {each for each in names if each.startswith(f"{folder}/a")}
    assert set(provider.list(f"{folder}/a/")) == {f"{folder}/a/b"}
    assert not list(provider.list(f"{folder}/nothing"))
    assert {provider.get(each).data["name"] for each in names} == names
    assert names <= set(provider.list())


def test_deleted_secret_is_gone_and_its_name_is_free(provider: SecretProvider, name: str) -> None:
    written = provider.put(name, {"password": PLANTED})
    provider.put(f"{name}/below", {"n": 1})
    assert provider.delete(name)
    assert not provider.delete(name)
    for revision in ("", written.revision):
        with pytest.raises(NotFound):
            provider.get(name, revision)
    assert set(provider.list(name)) == {f"{name}/below"}
    provider.put(name, {"n": 2}, expected="")
    assert provider.get(name).data == {"n": 2}


def test_value_that_is_too_large_is_refused(provider: SecretProvider, name: str) -> None:
    provider.put(name, {"blob": "x" * 20_000})
    assert len(provider.get(name).data["blob"]) == 20_000
    too_large = {"blob": "x" * 65_536}
    assert _refused(InvalidArgument, lambda: provider.put(name, too_large)) == "SECRET_TOO_LARGE"
    assert len(provider.get(name).data["blob"]) == 20_000


def test_longest_name_is_kept_or_refused(provider: SecretProvider) -> None:
    folder = secrets.token_hex(4)
    name = f"{folder}/{'a' * (256 - len(folder) - 1)}"
    try:
        provider.put(name, {"n": 1})
    except InvalidArgument as error:
        assert error.error_reason == "SECRET_NAME_UNUSABLE"  # noqa: PT017
        assert _refused(InvalidArgument, lambda: provider.get(name)) == "SECRET_NAME_UNUSABLE"
    else:
        assert provider.get(name).data == {"n": 1}
        assert list(provider.list(name)) == [name]


def test_writers_without_expectation_all_succeed(provider: SecretProvider, name: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as writers:
        written = list(writers.map(lambda n: provider.put(name, {"n": n}), range(4)))
    assert len({version.revision for version in written}) == 4
    assert provider.get(name).data["n"] in range(4)
