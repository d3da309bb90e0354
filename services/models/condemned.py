"""Condemning: how an object or a key is removed without a race.

First its name is condemned, in the transaction that sees that nothing refers to it. Whoever adds a reference looks in
its own transaction whether the name is condemned. So one of the two gives way, however long the removal takes, and a
removal that a crash interrupted is taken up again.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

import sqlalchemy as sa

from services.models import tables as t
from services.shared.errors import Aborted

_KEY = "keys/"
_KEK = "keks/"


class Condemned(Aborted):
    """What the request was going to refer to was collected as garbage, because it took too long."""

    reason = "COLLECTED"


def name_of_key(key_id: str) -> str:
    """Under what name a wrapped key is condemned; objects are under their keys in the store."""
    return _KEY + key_id


def key_named(name: str) -> str | None:
    """The wrapped key's id, or None if the name is an object's."""
    return name.removeprefix(_KEY) if name.startswith(_KEY) else None


def name_of_kek(kek_id: str) -> str:
    """Under what name a key-encryption key is condemned, with every key under it."""
    return _KEK + kek_id


def kek_named(name: str) -> str | None:
    """The key-encryption key's id, or None if the name is no such key's."""
    return name.removeprefix(_KEK) if name.startswith(_KEK) else None


def condemn(connection: sa.Connection, names: Iterable[str], now: datetime) -> None:
    """Forbids any further reference to these names, and has them removed.

    Once more, if they were: a process that died between making a copy and seeing that nobody wants it has left one.
    """
    rows = ({"name": name, "condemned_at": now, "removed_at": None} for name in names)
    t.insert_or_set(connection, t.condemned, rows, removed_at=None)


def refuse_condemned(connection: sa.Connection, names: Collection[str]) -> None:
    """Raises Condemned if one of the names is."""
    query = sa.select(t.condemned.c.name).where(t.condemned.c.name.in_(names)).limit(1)
    if connection.execute(query).first() is not None:
        raise Condemned("Garbage collection was faster than this upload. Try again.")


def is_condemned(connection: sa.Connection, name: str) -> bool:
    """Whether nobody may refer to this any more."""
    return connection.execute(sa.select(t.condemned.c.name).where(t.condemned.c.name == name)).first() is not None


def pending(connection: sa.Connection) -> list[str]:
    """The names whose removal is not confirmed."""
    return list(connection.scalars(sa.select(t.condemned.c.name).where(t.condemned.c.removed_at.is_(None))))


def confirm(connection: sa.Connection, names: Collection[str], now: datetime) -> None:
    """Notes that these are gone."""
    for batch in t.batches(list(names)):
        gone = t.condemned.c.name.in_(batch)
        connection.execute(sa.update(t.condemned).where(gone).values(removed_at=now))


def forget(connection: sa.Connection, before: datetime) -> None:
    """Deletes the notes of what was gone before then: nobody is left who might refer to it."""
    connection.execute(sa.delete(t.condemned).where(t.condemned.c.removed_at < before))
