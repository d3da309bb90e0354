"""A new, empty provider of each kind, on its server, as a configuration opens it."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from services.secrets.bootstrap import _MIGRATIONS
from services.secrets.providers.configuration import ProviderConfiguration
from services.secrets.providers.embedded import EmbeddedProvider
from services.secrets.providers.opening import open_provider
from services.secrets.providers.provider import SecretProvider
from services.secrets.vault import Vault
from services.shared.database import Database
from tests.key_vault import CLIENT, TENANT, KeyVaultServer
from tests.keyrings import keyring
from tests.openbao import OpenBaoServer
from tests.secret_manager import SecretManagerServer

REMOTE = ("aws", "gcp", "azure", "openbao")
KINDS = ("embedded", *REMOTE)
Fields = dict[str, object]


def private(folder: Path, value: str) -> Fields:
    """A reference to a file that holds the value."""
    file = folder / secrets.token_hex(8)
    file.touch(mode=0o600)
    file.write_text(value)
    return {"file": str(file)}


def fields(kind: str, request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str] = str) -> Fields:
    """What a configuration says of an empty one. `through` turns the server's URL into the one to be used instead."""
    return {"kind": kind, "prefix": f"team/{secrets.token_hex(6)}"} | _FIELDS[kind](request, folder, through)


def new_provider(
    kind: str, request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str] = str
) -> SecretProvider:
    return _embedded(folder) if kind == "embedded" else opened(fields(kind, request, folder, through))


def opened(fields: Fields) -> SecretProvider:
    """As the service opens what stands in its configuration."""
    return open_provider(TypeAdapter(ProviderConfiguration).validate_python(fields))


def _embedded(folder: Path) -> SecretProvider:
    url = f"sqlite:///{folder / 'strongroom.db'}"
    database = Database.open(url, service="secrets", migrations=_MIGRATIONS)
    vault = Vault(database, keyring(database))
    vault.prepare()
    return EmbeddedProvider(vault, database, lambda: datetime.now(UTC))


def _aws(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    url = request.getfixturevalue("moto_url")
    keys = {"access_key": private(folder, "AKIAEXAMPLE"), "secret_key": private(folder, "testing")}
    return {"region": "eu-west-1", "endpoint": through(url), **keys}


def _gcp(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    server: SecretManagerServer = request.getfixturevalue("secret_manager")
    return {"project": "strongroom-tests", "endpoint": through(server.url), "anonymous": True}


def _azure(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    server: KeyVaultServer = request.getfixturevalue("key_vault")
    application = {"tenant": TENANT, "client_id": CLIENT, "client_secret": private(folder, server.vault.client_secret)}
    trust = {"authority": server.url, "ca": str(server.ca), "verify_challenge": False}
    return {"endpoint": through(server.url), **application, **trust}


def _openbao(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    server: OpenBaoServer = request.getfixturevalue("openbao_server")
    mount = server.mount()
    sign_in = {"method": "token", "token": private(folder, server.token(mount))}
    return {"endpoint": through(server.url), "mount": mount, "sign_in": sign_in}


_FIELDS: dict[str, Callable[[pytest.FixtureRequest, Path, Callable[[str], str]], Fields]] = {
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
    "openbao": _openbao,
}
