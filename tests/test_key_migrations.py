"""What earlier releases stored, in the newest schema."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import services.models
import services.secrets
from services.models import tables as models_tables
from services.secrets import tables as secrets_tables
from services.shared.database import Database

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
MIGRATIONS = {
    "models": Path(services.models.__file__).parent / "migrations",
    "secrets": Path(services.secrets.__file__).parent / "migrations",
}


def upgraded(database_url: str, service: str, folder: Path, rows: dict[str, list[dict[str, Any]]]) -> Database:
    """A database of the first schema with these rows, brought up to date."""
    first = folder / service / "versions"
    first.mkdir(parents=True)
    shutil.copy(MIGRATIONS[service] / "versions" / "0001_initial.py", first)
    old = Database.open(database_url, service=service, migrations=first.parent)
    for name, values in rows.items():
        table = sa.Table(name, sa.MetaData(), autoload_with=old.engine)
        with old.write() as connection:
            connection.execute(sa.insert(table), values)
    old.close()
    return Database.open(database_url, service=service, migrations=MIGRATIONS[service])


def test_versions_and_uploads_are_in_the_one_domain_there_was(database_url: str, tmp_path: Path) -> None:
    version = {
        "id": 1,
        "uid": "uid",
        "model_id": 1,
        "name": "v1",
        "data_key_id": "data",
        "manifest_key": "manifests/uid",
        "manifest_digest": bytes(32),
        "size": 1,
        "files_count": 1,
        "created_at": NOW,
        "created_by": "key:a",
        "sha256_verified": True,
    }
    upload = {
        "id": "upload",
        "manager_id": "m",
        "model_name": "scorer",
        "version": "v2",
        "creator": "key:a",
        "state": "open",
        "resumable": True,
        "expires_at": NOW,
    }
    rows = {
        "managers": [{"id": "m", "kek_id": "managers/m", "domain_key_id": "domain", "created_at": NOW}],
        "models": [
            {"id": 1, "manager_id": "m", "name": "scorer", "versions_count": 1, "created_at": NOW, "updated_at": NOW}
        ],
        "versions": [version],
        "uploads": [upload],
        "condemned": [{"name": "keys/gone", "condemned_at": NOW}],
    }
    database = upgraded(database_url, "models", tmp_path, rows)
    t = models_tables
    with database.write() as connection:
        assert connection.execute(sa.select(t.versions.c.domain_key_id)).scalar_one() == "domain"
        found = connection.execute(sa.select(t.uploads.c.domain_key_id, t.uploads.c.protected)).one()
        assert tuple(found) == ("domain", False)
        # A name as long as that of any key-encryption key.
        connection.execute(sa.insert(t.condemned).values(name=f"keks/{'k' * 256}", condemned_at=NOW))
        assert connection.execute(sa.select(sa.func.count()).select_from(t.condemned)).scalar_one() == 2
    database.close()


def test_of_old_keys_contexts_are_unknown_and_what_may_encrypt_values_stays(database_url: str, tmp_path: Path) -> None:
    owners = ("models", "auth")
    common = {"wrapped": bytes(60), "created_at": NOW}
    rows = {
        "keks": [{"owner": owner, "id": "k", "version": 1, "created_at": NOW} for owner in owners],
        "kek_versions": [{"owner": owner, "kek_id": "k", "version": 1} | common for owner in owners],
        "keys": [{"id": f"key-{owner}", "owner": owner, "kek_id": "k", "kek_version": 1} | common for owner in owners],
    }
    database = upgraded(database_url, "secrets", tmp_path, rows)
    t = secrets_tables
    with database.read() as connection:
        encrypts = connection.execute(sa.select(t.kek_versions.c.owner, t.kek_versions.c.encrypts)).all()
        assert dict(map(tuple, encrypts)) == {"models": False, "auth": True}
        assert list(connection.scalars(sa.select(t.keys.c.context))) == [None, None]
    database.close()
