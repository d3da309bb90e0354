"""Strongroom in a notebook, where whatever a cell shows is kept in the file and shared with it.

    from strongroom.notebook import AUTH_HEADERS, authenticate_user, create_api_key

    authenticate_user("admin@example.com")  # asks for the password
    made = create_api_key("prefect-workflows", permission_set="prefect_workflows")
    requests.get(f"{URL}/api/v1/caller", headers=AUTH_HEADERS, timeout=30)

Nothing here shows a password, a key or a token by itself: `made.key` does, once, to whoever asks for it.
"""

import getpass
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from strongroom.client import Client
from strongroom.client.keys import NewKey
from strongroom.connection import DEFAULT_URL
from strongroom.errors import Unauthenticated

__all__ = ["AUTH_HEADERS", "authenticate_user", "authenticate_with_api_key", "client", "create_api_key"]


class AuthHeaders(Mapping[str, str]):
    """HTTP headers with the credential of this moment: an access token renews itself. Its repr hides the values."""

    def __init__(self, credential: Callable[[], dict[str, str]]) -> None:
        self._credential = credential

    def _now(self) -> dict[str, str]:
        return {**self._credential(), "Content-Type": "application/json"}

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __repr__(self) -> str:
        return "AuthHeaders(hidden)"


class _Notebook:
    """Who the notebook is at the moment."""

    def __init__(self) -> None:
        self._client: Client | None = None

    def become(self, client: Client) -> None:
        before, self._client = self._client, client
        if before is not None:
            before.close()

    def client(self) -> Client:
        if self._client is None:
            message = "Call authenticate_user or authenticate_with_api_key first."
            raise Unauthenticated(message, code="UNAUTHENTICATED", reason="CREDENTIAL_MISSING")
        return self._client

    def headers(self) -> dict[str, str]:
        return self.client().headers()


_notebook = _Notebook()

# Headers of whoever authenticated last.
AUTH_HEADERS = AuthHeaders(_notebook.headers)


def authenticate_user(
    email: str, password: str | None = None, *, new_password: str = "", url: str | None = None
) -> AuthHeaders:
    """Signs in as a user, for all that follows in the notebook.

    Args:
        password: asked for if it is not given: what stands in a cell is kept in the notebook.
        new_password: changes the password at the same time.
        url: the address; STRONGROOM_URL if not given.
    """
    client = Client(_address(url))
    try:
        client.sessions.sign_in(email, password or getpass.getpass("Password: "), new_password=new_password)
    except BaseException:
        client.close()
        raise
    _notebook.become(client)
    return AUTH_HEADERS


def authenticate_with_api_key(key: str | None = None, *, url: str | None = None) -> AuthHeaders:
    """Uses an API key for all that follows in the notebook. Raises Unauthenticated if it is not valid.

    Args:
        key: STRONGROOM_API_KEY if it is not given.
        url: the address; STRONGROOM_URL if not given.
    """
    client = Client(_address(url), api_key=key or os.environ.get("STRONGROOM_API_KEY"))
    try:
        client.tokens.caller()
    except BaseException:
        client.close()
        raise
    _notebook.become(client)
    return AUTH_HEADERS


def create_api_key(
    name: str,
    description: str = "",
    permission_set: str = "",
    *,
    permissions: Sequence[str] = (),
    scopes: Sequence[str] = (),
    expires_in_days: int | None = None,
) -> NewKey:
    """Creates a key as the user who authenticated; the arguments are those of `Client.keys.create`.

    What it returns does not show the key; `.key` is the key.
    """
    return client().keys.create(
        name,
        description=description,
        permission_set=permission_set,
        permissions=permissions,
        scopes=scopes,
        expires_in_days=expires_in_days,
    )


def client() -> Client:
    """The client of whoever authenticated last, for everything else."""
    return _notebook.client()


def _address(url: str | None) -> str:
    return url or os.environ.get("STRONGROOM_URL") or DEFAULT_URL
