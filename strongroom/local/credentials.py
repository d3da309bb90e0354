"""The secrets that a data directory begins with: the administrator's key, the service identities, the root key."""

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from strongroom.local.contract import SERVICES
from strongroom.local.errors import StartError
from strongroom.local.layout import Layout, write_private

BOOTSTRAP_KEY = "STRONGROOM_BOOTSTRAP_API_KEY"
BOOTSTRAP_KEY_FILE = "STRONGROOM_BOOTSTRAP_API_KEY_FILE"
ROOT_KEY_FILE = "STRONGROOM_ROOT_KEY_FILE"
KMS = "STRONGROOM_KMS"

_MIN_KEY_CHARACTERS = 16
_ROOT_KEY_BYTES = 32


@dataclass(frozen=True)
class Credentials:
    """Where the secrets are. `shown_key` is the administrator's key at the one start that made it."""

    admin_key_file: Path | None
    root_key_file: Path
    shown_key: str | None = field(default=None, repr=False)


def provide(layout: Layout, environment: Mapping[str, str]) -> Credentials:
    """Makes what is missing at the first start, and never replaces what later starts miss. Raises StartError."""
    first = not layout.used and not layout.root_key.exists()
    given = environment.get(BOOTSTRAP_KEY, "")
    shown = None
    if given:
        _check(given)
        write_private(layout.admin_key, f"{given}\n")
    elif first and not layout.admin_key.exists():
        shown = new_admin_key()
        write_private(layout.admin_key, f"{shown}\n")
    make_identities(layout.identities)
    # The root key comes last: where it is missing, the first start was not finished.
    root_key_file = _root_key(layout, environment)
    return Credentials(_admin_key_file(layout, environment), root_key_file, shown)


def _check(key: str) -> None:
    if len(key) < _MIN_KEY_CHARACTERS or not key.isprintable():
        raise StartError(f"{BOOTSTRAP_KEY} needs {_MIN_KEY_CHARACTERS} printable characters or more.")


def new_admin_key() -> str:
    from services.auth import key_format

    return key_format.generate().text


def _admin_key_file(layout: Layout, environment: Mapping[str, str]) -> Path | None:
    # A key that is gone is not made again: whoever empties a file must not become administrator.
    if layout.admin_key.exists():
        return layout.admin_key
    given = environment.get(BOOTSTRAP_KEY_FILE)
    return Path(given).absolute() if given else None


def _root_key(layout: Layout, environment: Mapping[str, str]) -> Path:
    given = environment.get(ROOT_KEY_FILE)
    if given:
        return Path(given).absolute()
    if not layout.root_key.exists() and not _root_key_is_elsewhere(layout, environment):
        if layout.used:
            raise StartError(
                f"{layout.root_key} is missing, and nothing in {layout.root} can be opened without it. "
                "Put it back from your backup."
            )
        write_private(layout.root_key, base64.b64encode(os.urandom(_ROOT_KEY_BYTES)).decode() + "\n")
    return layout.root_key


def _root_key_is_elsewhere(layout: Layout, environment: Mapping[str, str]) -> bool:
    """Whether a configuration names another root key; of data that is there the secrets service knows its own."""
    given = environment.get(KMS)
    file = Path(given) if given else layout.kms if layout.kms.exists() else None
    if file is None or layout.used:
        return file is not None
    from services.secrets.root_keys import configuration
    from services.shared.configuration import ConfigurationError

    try:
        return configuration.load(file, layout.root_key).primary != configuration.FILE
    except ConfigurationError as error:
        raise StartError(f"The root keys can't be read: {error}") from None


def make_identities(folder: Path) -> None:
    """A P-256 key pair for each service that has none: with it services prove to each other who they are."""
    missing = [name for name in SERVICES if not (folder / f"{name}.pub.pem").exists()]
    if not missing:
        return
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    for name in missing:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        write_private(folder / f"{name}.pem", private.decode())
        write_private(folder / f"{name}.pub.pem", public.decode())
