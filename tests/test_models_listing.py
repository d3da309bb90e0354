"""Listings and names in large installations: few statements, however many rows there are."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

import services.models
from services.models import tables as t
from services.models.guesses import Guesses
from services.models.key_client import KeyClient
from services.models.managers import DEFAULT_MANAGER, Managers
from services.models.uploads import Uploads
from services.models.version_keys import VersionKeys
from services.models.versions import Versions
from services.shared.database import Database

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    migrations = Path(services.models.__file__).parent / "migrations"
    opened = Database.open(f"sqlite:///{tmp_path}/strongroom.db", service="models", migrations=migrations)
    with opened.write() as connection:
        row = {"id": DEFAULT_MANAGER, "kek_id": "kek", "domain_key_id": "domain", "created_at": NOW}
        connection.execute(sa.insert(t.managers).values(row))
    yield opened
    opened.close()


@pytest.fixture
def managers(database: Database) -> Managers:
    # Nobody listens there: neither listing nor naming asks for a key.
    return Managers(database, KeyClient(grpc.insecure_channel("127.0.0.1:1")), lambda: NOW)


def count_statements(database: Database) -> list[str]:
    """A list that every statement from now on is added to."""
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    return statements


def test_who_may_see_one_model_in_thousands_is_answered_by_a_few_queries(
    database: Database, managers: Managers
) -> None:
    names = [f"model-{number:04}" for number in range(3000)]
    common = {"manager_id": DEFAULT_MANAGER, "versions_count": 1, "created_at": NOW, "updated_at": NOW}
    with database.write() as connection:
        connection.execute(
            sa.insert(t.models), [common | {"id": number, "name": name} for number, name in enumerate(names)]
        )
        versions = [
            {
                "model_id": number,
                "uid": name,
                "name": "v",
                "data_key_id": name,
                "manifest_key": name,
                "manifest_digest": b"",
                "size": 0,
                "files_count": 1,
                "created_at": NOW,
                "created_by": "key:a",
                "sha256_verified": False,
            }
            for number, name in enumerate(names)
        ]
        connection.execute(sa.insert(t.versions), versions)
    seen = {names[0], names[1500], names[-1]}
    listing = Versions(database, managers, lambda _names: None, lambda: NOW)
    statements = count_statements(database)
    listed, token = [], ""
    while True:
        page, token = listing.list_models(DEFAULT_MANAGER, 1, token, seen.__contains__)
        listed += [model.name for model in page]
        if not token:
            break
    assert listed == sorted(seen)
    assert len(statements) < 100


def test_pushes_of_one_second_are_named_without_running_ahead_of_the_clock(
    database: Database, managers: Managers
) -> None:
    keys = VersionKeys(KeyClient(grpc.insecure_channel("127.0.0.1:1")), managers, Guesses(database, lambda: NOW))
    uploads = Uploads(database, managers, keys, lambda: NOW)
    names = [uploads.create("key:a", DEFAULT_MANAGER, "scorer", "")[0].version for _ in range(3)]
    assert names == ["20260102T030405Z", "20260102T030405.000000Z", "20260102T030405.000001Z"]
