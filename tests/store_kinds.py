"""A new, empty store of each kind, on its real server, as a configuration opens it."""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.models.stores import azure, gcs, s3
from services.models.stores.configuration import AzureConfiguration, GcsConfiguration, S3Configuration
from services.models.stores.local import LocalStore
from services.models.stores.parts import Patience
from services.models.stores.store import Store
from tests.store_servers import BUCKET, AzureServer, GcsServer, S3Server

KINDS = ("local", "s3", "gcs", "azure")
REMOTE = KINDS[1:]
_USUAL = Patience()
_Fields = dict[str, Any]
_Secret = Callable[[str], dict[str, Any]]


def new_store(
    kind: str,
    request: pytest.FixtureRequest,
    through: Callable[[str], str] = str,
    *,
    patience: Patience = _USUAL,
    bucket: str = BUCKET,
    secret: str | None = None,
    prefix: str | None = None,
) -> Store:
    """Opens an empty store, below a prefix of its own unless one is given.

    `through` turns the server's URL into the one that the store shall use instead.
    """
    folder: Path = request.getfixturevalue("tmp_path")
    if kind == "local":
        return LocalStore(folder / secrets.token_hex(4))
    server = request.getfixturevalue(f"{kind}_server")
    prefix = f"team/{secrets.token_hex(8)}" if prefix is None else prefix
    configuration = {"kind": kind, "prefix": prefix, "endpoint": through(server.url)}
    return _OPEN[kind](server, configuration, bucket, lambda own: _secret(folder, secret or own), patience)


def _secret(folder: Path, value: str) -> dict[str, Any]:
    file = folder / secrets.token_hex(8)
    file.touch(mode=0o600)
    file.write_text(value)
    return {"file": file}


def _s3(server: S3Server, fields: _Fields, bucket: str, secret: _Secret, patience: Patience) -> Store:
    keys = {"access_key": secret(server.access_key), "secret_key": secret(server.secret_key)}
    return s3.opened(S3Configuration(bucket=bucket, **keys, **fields), patience)


def _gcs(server: GcsServer, fields: _Fields, bucket: str, secret: _Secret, patience: Patience) -> Store:
    return gcs.opened(GcsConfiguration(bucket=bucket, anonymous=True, **fields), patience)


def _azure(server: AzureServer, fields: _Fields, bucket: str, secret: _Secret, patience: Patience) -> Store:
    return azure.opened(AzureConfiguration(container=bucket, credential=secret(server.key), **fields), patience)


_OPEN = {"s3": _s3, "gcs": _gcs, "azure": _azure}
