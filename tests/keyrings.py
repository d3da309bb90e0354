"""Keys for tests of what is encrypted, without a service."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from services.secrets.keyring import Keyring
from services.secrets.root_generations import RootGenerations
from services.secrets.root_keys.source import RootKeySource
from services.shared.database import Database


def _now() -> datetime:
    return datetime.now(UTC)


def keyring(database: Database, clock: Callable[[], datetime] = _now) -> Keyring:
    """Under the same root key each time, so that all of one database open each other's keys."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "root.key"
        file.touch(mode=0o600)
        file.write_bytes(base64.b64encode(bytes(32)))
        generations = RootGenerations(database, RootKeySource(file, None), clock)
        generations.open()
    return Keyring(database, generations, clock)
