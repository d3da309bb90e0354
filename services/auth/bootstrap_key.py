"""The administrator's first key, which the environment gives: `STRONGROOM_BOOTSTRAP_API_KEY`, or a file that holds it.

It may be any text of 16 characters or more. Of one that is not of our format nothing is ever shown, not even its first
characters: of a text that a person chose, eight may be half. Its prefix is random, like that of any key.
"""

import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import sqlalchemy as sa
import structlog

from services.auth import key_format
from services.auth.api_keys import NewApiKey, new_row
from services.auth.pepper import Pepper
from services.auth.permission_sets import FULL_ACCESS, resolve
from services.auth.tables import api_keys
from services.shared.database import Database

_NAME = "administrator"
_CREATOR = "bootstrap"
_MIN_CHARACTERS = 16
# Envoy's limit for all headers together is 60 KiB; nobody needs a hundredth of it.
MAX_CHARACTERS = 512
# Values that documents and examples show, so that everybody knows them.
_KNOWN = frozenset(
    {"dev_key", "change-this-in-production", "your_secret_key", "dev-token-12345", "changeme", "change-me"}
)

_log = structlog.get_logger()


def check(value: str) -> str:
    """The bootstrap key, if it may be used as one. Raises ValueError, without the value."""
    if len(value) < _MIN_CHARACTERS or len(value) > MAX_CHARACTERS:
        raise ValueError(f"The bootstrap API key needs {_MIN_CHARACTERS} to {MAX_CHARACTERS} characters.")
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise ValueError(
            "The bootstrap API key must be printable ASCII without blanks at its ends, as a header can carry."
        )
    if any(known in value.lower().replace(" ", "") for known in _KNOWN):
        raise ValueError("The bootstrap API key is a well-known example. Take a random one: openssl rand -hex 24")
    return value


def read_file(file: Path) -> str:
    """The key in a file of mode 0600, a line end at its end left out. Raises ValueError, PermissionError or OSError."""
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{file} may be read by others; run: chmod 600 {file}")
    return check(file.read_text(encoding="utf-8").rstrip("\r\n"))


def ensure(database: Database, pepper: Pepper, value: str, now: datetime) -> None:
    """Makes the value a full_access key and revokes the bootstrap keys before it.

    A value that was revoked stays revoked: were it to come back with a restart, revoking a leaked key would mean
    nothing.
    """
    key_hash = pepper.hash(value)
    parsed = key_format.parse(value)
    prefix = parsed.prefix if parsed else key_format.random_text(key_format.PREFIX_CHARACTERS)
    # A replica that starts at the same moment and inserts first has done the work.
    with suppress(sa.exc.IntegrityError), database.write() as connection:
        row = connection.execute(sa.select(api_keys).where(api_keys.c.key_hash == key_hash)).one_or_none()
        if row is not None and (row.revoked_at is not None or not row.bootstrap):
            _log.error(
                "auth.bootstrap_key_refused", cause="revoked" if row.bootstrap else "another key", key_prefix=row.prefix
            )
            return
        if row is None:
            wish = NewApiKey(_NAME, "From the environment of the auth service.", FULL_ACCESS.name)
            new = new_row(wish, resolve(FULL_ACCESS.name, (), ()), created_by=_CREATOR, created_at=now)
            new |= {"prefix": prefix, "key_hash": key_hash, "bootstrap": True}
            connection.execute(sa.insert(api_keys).values(new))
        connection.execute(
            sa.update(api_keys)
            .where(api_keys.c.bootstrap, api_keys.c.key_hash != key_hash, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
