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


def new_store(
    kind: str, request: pytest.FixtureRequest, through: Callable[[str], str] = str, patience: Patience = _USUAL
) -> Store:
    """Opens an empty store. `through` turns the server's URL into the one that the store shall use instead."""
    folder: Path = request.getfixturevalue("tmp_path")
    if kind == "local":
        return LocalStore(folder / secrets.token_hex(4))
    server = request.getfixturevalue(f"{kind}_server")
    return _OPEN[kind](server, through(server.url), folder, patience)


def _new_prefix() -> str:
    return f"team/{secrets.token_hex(8)}"


def _secret(folder: Path, value: str) -> dict[str, Any]:
    file = folder / secrets.token_hex(8)
    file.touch(mode=0o600)
    file.write_text(value)
    return {"file": file}


def _s3(server: S3Server, url: str, folder: Path, patience: Patience) -> Store:
    configuration = S3Configuration(
        kind="s3",
        bucket=BUCKET,
        prefix=_new_prefix(),
        endpoint=url,
        access_key=_secret(folder, server.access_key),
        secret_key=_secret(folder, server.secret_key),
    )
    return s3.opened(configuration, patience)


def _gcs(server: GcsServer, url: str, folder: Path, patience: Patience) -> Store:
    configuration = GcsConfiguration(kind="gcs", bucket=BUCKET, prefix=_new_prefix(), endpoint=url, anonymous=True)
    return gcs.opened(configuration, patience)


def _azure(server: AzureServer, url: str, folder: Path, patience: Patience) -> Store:
    configuration = AzureConfiguration(
        kind="azure",
        container=BUCKET,
        prefix=_new_prefix(),
        endpoint=url,
        credential=_secret(folder, server.key),
    )
    return azure.opened(configuration, patience)


_OPEN = {"s3": _s3, "gcs": _gcs, "azure": _azure}
