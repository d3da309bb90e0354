"""Rotations that began: how far each is, and how it ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from services.secrets.rotation_tables import rotation_runs as r
from services.secrets.rotation_tables import rotations

# Of one secret; the others are forgotten.
KEPT = 100
# How the authors of versions begin that are made by rotations; no caller is called so.
AUTHOR = "rotation:"


class State(StrEnum):
    """The step that comes next, or has begun and perhaps not ended; then how it ended."""

    CREATE = "create"
    SET = "set"
    TEST = "test"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    DONE = "done"
    ROLLED_BACK = "rolled_back"


ENDED = (State.DONE, State.ROLLED_BACK)


@dataclass(frozen=True)
class Run:
    """One rotation. `trigger` is `schedule`, `retry` or `request`; `notes` are None until the rotator has prepared."""

    id: str
    secret_name: str
    rotator: str
    options: Mapping[str, Any]
    grace: timedelta
    state: State
    trigger: str
    requested_by: str
    base_version: int
    version: int | None
    notes: Mapping[str, Any] | None
    error: str
    reason: str
    started_at: datetime
    finished_at: datetime | None
    retire_at: datetime | None
    retired_at: datetime | None

    @property
    def author(self) -> str:
        """Who wrote the version that it makes: by this a run that was cut off finds it again."""
        return f"{AUTHOR}{self.id}"


def unfinished(connection: Connection, name: str) -> Run | None:
    """The one run of a secret that has not ended."""
    wanted = sa.select(r).where(r.c.secret_name == name, r.c.state.not_in(ENDED))
    row = connection.execute(wanted.order_by(r.c.id).limit(1)).one_or_none()
    return None if row is None else run_of(row)


def in_grace(connection: Connection, name: str) -> list[Run]:
    """The runs whose version before still works, the oldest first."""
    wanted = sa.select(r).where(r.c.secret_name == name, r.c.state == State.DONE, r.c.retired_at.is_(None))
    return [run_of(row) for row in connection.execute(wanted.order_by(r.c.id))]


def latest(connection: Connection, name: str, *, limit: int, state: State | None = None) -> list[Run]:
    """The newest first."""
    wanted = sa.select(r).where(r.c.secret_name == name).order_by(r.c.id.desc()).limit(limit)
    if state is not None:
        wanted = wanted.where(r.c.state == state)
    return [run_of(row) for row in connection.execute(wanted)]


def insert(connection: Connection, values: Mapping[str, Any]) -> None:
    """Adds a run, and forgets the oldest if there are more than KEPT."""
    connection.execute(sa.insert(r).values(**values))
    of_secret = r.c.secret_name == values["secret_name"]
    oldest = sa.select(r.c.id).where(of_secret).order_by(r.c.id.desc()).offset(KEPT).limit(1).scalar_subquery()
    over = sa.or_(r.c.retired_at.is_not(None), r.c.state == State.ROLLED_BACK)
    connection.execute(sa.delete(r).where(of_secret, r.c.id <= oldest, over))


def give_up(connection: Connection, name: str, now: datetime) -> Run | None:
    """The secret rotates no more; the run that had not ended. Nothing is taken back, what is in its grace works on."""
    run = unfinished(connection, name)
    # With the row goes the lease of whoever works on it.
    connection.execute(sa.delete(rotations).where(rotations.c.secret_name == name))
    of_secret = r.c.secret_name == name
    connection.execute(sa.update(r).where(of_secret, r.c.retired_at.is_(None)).values(retired_at=now))
    given_up = {"state": State.ROLLED_BACK, "finished_at": now}
    connection.execute(sa.update(r).where(of_secret, r.c.finished_at.is_(None)).values(given_up))
    return run


def run_of(row: Row[Any]) -> Run:
    """The run that a row is."""
    fields = dict(row._mapping)
    notes = fields.pop("notes")
    return Run(
        grace=timedelta(seconds=fields.pop("grace_seconds")),
        options=json.loads(fields.pop("options")),
        notes=None if notes is None else json.loads(notes),
        state=State(fields.pop("state")),
        **fields,
    )
