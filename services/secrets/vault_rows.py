"""Rows of secrets and of their versions, as the vault reads and changes them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets.tables import hold, secret_versions, secrets
from services.secrets.vault_errors import SecretNotFound, SecretVersionNotFound
from services.secrets.vault_records import SecretVersion, Stage


def _read(stage: Stage) -> sa.Select[Any]:
    """A secret with the version `number`, or with the one in this stage if that is 0. Built once: it is asked often."""
    s, v = secrets.c, secret_versions.c
    number = sa.func.coalesce(sa.func.nullif(sa.bindparam("number", type_=sa.BigInteger), 0), s[f"{stage}_version"])
    wanted = sa.and_(v.secret_name == s.name, v.version == number)
    staged = [s[f"{each}_version"] for each in Stage]
    about = [s.name, s.name.label("secret_name"), s.uid, s.key_id, s.last_version, *staged]
    moments = [v.version, v.sealed, v.created_at, v.created_by, v.expires_at, v.deleted_at, v.destroyed_at]
    found = sa.select(*about, s.deleted_at.label("secret_deleted_at"), number.label("number"), *moments)
    return found.select_from(secrets.outerjoin(secret_versions, wanted)).where(s.name == sa.bindparam("name"))


READ = {stage: _read(stage) for stage in Stage}


def find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(sa.select(secrets).where(secrets.c.name == name)).one_or_none()


def existing(connection: Connection, name: str) -> Row[Any]:
    secret = find(connection, name)
    if secret is None:
        raise SecretNotFound(name)
    return secret


def hold_secret(connection: Connection, name: str) -> Row[Any] | None:
    """As `find`; until the transaction ends nobody else writes this secret, or creates it."""
    hold(connection, f"secret {name}")
    return find(connection, name)


def change(connection: Connection, name: str, **values: Any) -> None:
    connection.execute(sa.update(secrets).where(secrets.c.name == name).values(values))


def versions_of(connection: Connection, name: str, versions: Sequence[int]) -> list[Row[Any]]:
    """The rows of these versions. Raises SecretVersionNotFound unless all are there."""
    v = secret_versions.c
    found = sa.select(secret_versions).where(v.secret_name == name, v.version.in_(versions)).order_by(v.version)
    rows = list(connection.execute(found))
    for missing in sorted({*versions} - {row.version for row in rows}):
        raise SecretVersionNotFound(name, missing)
    return rows


_STAGED = [(stage, f"{stage}_version") for stage in Stage]


def _stage_of(secret: Row[Any], version: int) -> str:
    return next((stage for stage, column in _STAGED if getattr(secret, column) == version), "")


def told(secret: Row[Any], row: Row[Any]) -> SecretVersion:
    stage = _stage_of(secret, row.version)
    moments = (row.expires_at, row.deleted_at, row.destroyed_at)
    return SecretVersion(row.secret_name, row.version, row.created_at, row.created_by, stage, *moments)
