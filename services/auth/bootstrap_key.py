"""The administrator's first key, which the environment gives: `STRONGROOM_BOOTSTRAP_API_KEY`, or a file that holds it.

It may be any text of 16 characters or more. Of one that is not of our format nothing is ever shown, not even its first
characters: of a text that a person chose, eight may be half. Its prefix is random, like that of any key.
"""

import stat
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from services.auth import chosen_secrets, key_format, key_versions
from services.auth.key_record import NewApiKey, new_row
from services.auth.pepper import Pepper
from services.auth.permission_sets import FULL_ACCESS
from services.auth.rights import resolve
from services.auth.tables import api_key_versions, api_keys
from services.shared.database import Database

_NAME = "administrator"
_CREATOR = "bootstrap"
_BY_HASH = (
    sa.select(
        *(api_keys.c.id, api_keys.c.bootstrap, api_keys.c.revoked_at),
        *(api_key_versions.c.prefix, api_key_versions.c.expires_at.label("grace_ends")),
    )
    .join(api_key_versions)
    .where(api_key_versions.c.key_hash == sa.bindparam("key_hash"))
)

_log = structlog.get_logger()


def check(value: str) -> str:
    """The bootstrap key, if it may be used as one. Raises ValueError, without the value."""
    return chosen_secrets.check(value, "The bootstrap API key")


def read_file(file: Path) -> str:
    """The key in a file of mode 0600, a line end at its end left out. Raises ValueError, PermissionError or OSError."""
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{file} may be read by others; run: chmod 600 {file}")
    return check(file.read_text(encoding="utf-8").rstrip("\r\n"))


def ensure(database: Database, pepper: Pepper, value: str, now: datetime) -> None:
    """Makes the value a full_access key and revokes the bootstrap keys before it.

    A value that was revoked or rotated away stays so: were it to come back with a restart, revoking a leaked key would
    mean nothing.
    """
    key_hash = pepper.hash(value)
    parsed = key_format.parse(value)
    prefix = parsed.prefix if parsed else key_format.random_text(key_format.PREFIX_CHARACTERS)
    # A replica that starts at the same moment and inserts first has done the work.
    with suppress(sa.exc.IntegrityError), database.write() as connection:
        row = connection.execute(_BY_HASH, {"key_hash": key_hash}).one_or_none()
        if row is not None and (cause := _unfit(row, now)):
            _log.error("auth.bootstrap_key_refused", cause=cause, key_prefix=row.prefix)
            return
        if row is None:
            wish = NewApiKey(_NAME, resolve(FULL_ACCESS.name), "From the environment of the auth service.")
            new = new_row(wish, (), owner=_CREATOR, created_by=_CREATOR, created_at=now) | {"bootstrap": True}
            connection.execute(sa.insert(api_keys).values(new))
            key_versions.add(connection, new["id"], 1, prefix, key_hash, now)
        kept = row.id if row is not None else new["id"]
        connection.execute(
            sa.update(api_keys)
            .where(api_keys.c.bootstrap, api_keys.c.id != kept, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )


def _unfit(row: Any, now: datetime) -> str:
    """Why the value of the environment can't be the administrator's key; empty if it can."""
    if not row.bootstrap:
        return "another key"
    if row.revoked_at is not None:
        return "revoked"
    return "rotated" if row.grace_ends is not None and row.grace_ends <= now else ""
