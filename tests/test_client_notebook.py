"""The helpers of a notebook: who is authenticated, what a cell would show, headers that stay good."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from strongroom import Client, notebook
from strongroom.client.keys import NewKey
from strongroom.errors import InvalidArgument, Unauthenticated
from strongroom.notebook import AUTH_HEADERS, authenticate_user, authenticate_with_api_key, create_api_key
from tests.stack import Stack

pytestmark = pytest.mark.row("S2.8")

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def fresh(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A notebook that was just opened, with the address in the environment."""
    monkeypatch.setattr(notebook._notebook, "_client", None)
    monkeypatch.setenv("STRONGROOM_URL", stack.url)
    monkeypatch.delenv("STRONGROOM_API_KEY", raising=False)
    yield
    if notebook._notebook._client is not None:
        notebook._notebook._client.close()


@pytest.fixture
def email(request: pytest.FixtureRequest, stack: Stack) -> str:
    """An administrator's. It stays: the last one can't be deleted."""
    with Client(stack.url, api_key=stack.admin_key) as admin:
        return admin.users.create(f"{request.node.name}@example.org"[-64:], role="admin", password=PASSWORD).email


def shown(value: object) -> str:
    """Everything that a notebook could make of the value of a cell."""
    ways = ("_repr_html_", "_repr_pretty_", "_repr_json_", "_repr_markdown_", "_repr_mimebundle_")
    assert not any(hasattr(value, way) for way in ways)
    return f"{value!r} {value} {[value]!r}"


def who(stack: Stack) -> str:
    """Whom the headers stand for, as another library presents them."""
    answer = requests.get(f"{stack.url}/api/v1/caller", headers=AUTH_HEADERS, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["name"])


def test_the_way_of_the_document(stack: Stack, email: str) -> None:
    assert authenticate_user(email, PASSWORD) is AUTH_HEADERS
    assert who(stack) == email
    made = create_api_key(
        name="notebook-way", description="For Prefect automated workflows", permission_set="prefect_workflows"
    )
    assert isinstance(made, NewKey)
    assert made.about.description == "For Prefect automated workflows"
    assert authenticate_with_api_key(made.key) is AUTH_HEADERS
    assert AUTH_HEADERS["X-API-Key"] == made.key
    assert AUTH_HEADERS["Content-Type"] == "application/json"
    assert who(stack) == "notebook-way"


def test_nothing_shows_a_key_a_token_or_a_password(email: str) -> None:
    headers = authenticate_user(email, PASSWORD)
    token = headers["Authorization"].removeprefix("Bearer ")
    made = create_api_key("notebook-shown <b>bold</b>", permission_set="read_only")
    everything = shown(headers) + shown(made) + shown(notebook.client()) + shown(made.about)
    for secret in (token, made.key, PASSWORD):
        assert secret not in everything


def test_headers_renew_themselves(stack: Stack, email: str) -> None:
    authenticate_user(email, PASSWORD)
    before = AUTH_HEADERS["Authorization"]
    sessions = notebook.client().sessions
    tokens = sessions._store.load()
    assert tokens is not None
    sessions._store.save(replace(tokens, renew_at=time.time() - 1))
    sessions._act()
    assert AUTH_HEADERS["Authorization"] != before
    assert who(stack) == email


def test_a_key_that_is_not_valid_is_told_at_once(stack: Stack) -> None:
    authenticate_with_api_key(stack.admin_key)
    with pytest.raises(Unauthenticated) as caught:
        authenticate_with_api_key("sr_notakeyatall")
    assert "sr_notakeyatall" not in str(caught.value)
    assert who(stack) == "administrator"


def test_the_key_may_stand_in_the_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_API_KEY", stack.admin_key)
    authenticate_with_api_key()
    assert who(stack) == "administrator"


def test_a_password_that_is_not_given_is_asked_for(stack: Stack, email: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _question: PASSWORD)
    authenticate_user(email)
    assert who(stack) == email


def test_a_wrong_password_leaves_nobody_signed_in(email: str) -> None:
    with pytest.raises(Unauthenticated):
        authenticate_user(email, "not it at all")
    with pytest.raises(Unauthenticated, match="authenticate_user or authenticate_with_api_key first"):
        create_api_key("k", permission_set="read_only")


def test_mistakes_are_told_as_the_library_tells_them(stack: Stack) -> None:
    authenticate_with_api_key(stack.admin_key)
    with pytest.raises(InvalidArgument, match="There is no permission set") as caught:
        create_api_key("k", permission_set="everything")
    assert caught.value.reason == "PERMISSION_SET_UNKNOWN"
