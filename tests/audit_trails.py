"""Trails of audit events on databases of their own, without a service around them."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from services.secrets import bootstrap
from services.secrets.tables import audit_events
from services.shared.audit.trail import Trail
from services.shared.database import Database
from services.shared.tokens import ServiceIdentity
from tests.serving import make_identities

SERVICE = "secrets"
MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"


class Place:
    """A folder with identities and a database, in which trails begin and end."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.url = url or f"sqlite:///{folder}/db/strongroom.db"
        identities = folder / "keys"
        if not identities.exists():
            make_identities(identities)
        self.identity = ServiceIdentity.load(SERVICE, identities)

    def open(self) -> Database:
        return Database.open(self.url, service=SERVICE, migrations=MIGRATIONS)

    def trail(self, database: Database, data_dir: Path | None = None) -> Trail:
        """A trail that has not started."""
        return Trail(database, audit_events, self.identity, data_dir or self.folder, lambda: datetime.now(UTC))

    @contextmanager
    def started(self, data_dir: Path | None = None) -> Iterator[Trail]:
        """A trail from its start to its orderly end."""
        with closing(self.open()) as database:
            trail = self.trail(database, data_dir)
            trail.start()
            try:
                yield trail
            finally:
                trail.close()

    @property
    def file(self) -> Path:
        """SQLite's."""
        return self.folder / "db" / f"strongroom-{SERVICE}.db"

    @property
    def heads(self) -> Path:
        return self.folder / "audit" / f"{SERVICE}-heads.jsonl"

    def sql(self, *statements: str) -> list[Any]:
        """Works on the database behind everybody's back, as its administrator can; the rows of the last statement."""
        if self.url.startswith("sqlite"):
            with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
                return [connection.execute(statement).fetchall() for statement in statements][-1]
        with closing(self.open()) as database, database.write() as connection:
            results = [connection.execute(sa.text(statement)) for statement in statements]
            return list(results[-1]) if results[-1].returns_rows else []

    def problems(self) -> list[str]:
        """What a process that looks at the log now finds wrong with it."""
        with closing(self.open()) as database:
            return [problem for report in self.trail(database).log.verify() for problem in report.problems]


def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found
