"""A new, empty provider of each kind, on its server, as a configuration opens it."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from services.secrets.providers.configuration import ProviderConfiguration
from services.secrets.providers.opening import open_provider
from services.secrets.providers.provider import SecretProvider
from tests.openbao import OpenBaoServer

REMOTE = ("aws", "openbao")
KINDS = REMOTE
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
    return opened(fields(kind, request, folder, through))


def opened(fields: Fields) -> SecretProvider:
    """As the service opens what stands in its configuration."""
    return open_provider(TypeAdapter(ProviderConfiguration).validate_python(fields))


def _aws(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    url = request.getfixturevalue("moto_url")
    keys = {"access_key": private(folder, "AKIAEXAMPLE"), "secret_key": private(folder, "testing")}
    return {"region": "eu-west-1", "endpoint": through(url), **keys}


def _openbao(request: pytest.FixtureRequest, folder: Path, through: Callable[[str], str]) -> Fields:
    server: OpenBaoServer = request.getfixturevalue("openbao_server")
    mount = server.mount()
    sign_in = {"method": "token", "token": private(folder, server.token(mount))}
    return {"endpoint": through(server.url), "mount": mount, "sign_in": sign_in}


_FIELDS: dict[str, Callable[[pytest.FixtureRequest, Path, Callable[[str], str]], Fields]] = {
    "aws": _aws,
    "openbao": _openbao,
}
