"""Keys that were made before they had versions."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.auth import bootstrap, key_format
from services.auth.api_keys import ApiKeys
from services.auth.envelope import Envelope
from services.auth.key_versions import KeyVersions
from services.auth.pepper import Pepper
from services.auth.tables import METADATA, peppers
from services.shared.database import Database
from services.shared.identity import Grant, Principal

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"
NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
IDS = [f"01ARZ3NDEKTSV4RRFFQ69G5FA{letter}" for letter in "VWX"]
SECRETS = [key_format.generate() for _ in IDS]
ADMINISTRATOR = Principal("user:1", grants=(Grant("allow", ("*",), ("**",)),))


@pytest.fixture
def migrated(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """Three keys of the first schema, in the newest."""
    first = tmp_path / "first" / "versions"
    first.mkdir(parents=True)
    shutil.copy(MIGRATIONS / "versions" / "0001_initial.py", first)
    old = Database.open(database_url, service="auth", migrations=first.parent)
    keys = sa.Table("api_keys", sa.MetaData(), autoload_with=old.engine)
    for name in ("permissions", "scopes"):
        keys.c[name].type = sa.JSON()
    pepper = _pepper(old)
    rows = [
        {
            "id": key_id,
            "name": f"key {number}",
            "description": "old",
            "prefix": secret.prefix,
            "key_hash": pepper.hash(secret.text),
            "permission_set": "",
            "permissions": ["models.read"],
            "scopes": scopes,
            "created_by": "bootstrap",
            "bootstrap": False,
            "usage_count": 7,
            "created_at": NOW,
            "expires_at": NOW + timedelta(days=30),
            "revoked_at": revoked,
            "last_used_at": NOW,
        }
        for number, (key_id, secret, scopes, revoked) in enumerate(
            zip(IDS, SECRETS, ([], ["managers/fraud/**"], []), (None, None, NOW), strict=True)
        )
    ]
    with old.write() as connection:
        connection.execute(sa.insert(keys), rows)
    old.close()
    database = Database.open(database_url, service="auth", migrations=MIGRATIONS)
    yield database
    database.close()


def _pepper(database: Database) -> Pepper:
    """With an envelope that hides nothing: this test is about rows."""
    pepper = Pepper(database, Envelope(lambda text, _context: text, lambda text, _context: text), lambda: NOW)
    pepper.load()
    return pepper


def test_a_key_keeps_its_id_its_secret_and_what_it_may_do(migrated: Database) -> None:
    versions = KeyVersions(migrated, _pepper(migrated), lambda: NOW)
    whole, scoped, revoked = (versions.find(secret.text) for secret in SECRETS)
    assert whole
    assert scoped
    assert revoked
    # Tokens that were made of it before name it by its id.
    assert (whole.principal.id, whole.principal.credential_id) == (f"key:{IDS[0]}", f"key:{IDS[0]}")
    assert (whole.principal.name, whole.principal.key_prefix) == ("key 0", SECRETS[0].prefix)
    assert whole.expires_at == NOW + timedelta(days=30)
    assert whole.principal.grants == (Grant("allow", ("models.read",), ("**",)),)
    assert scoped.principal.grants == (Grant("allow", ("models.read",), ("managers/fraud/**",)),)
    assert revoked.revoked_at == NOW
    assert not versions.unusable(f"key:{IDS[0]}")
    assert versions.unusable(f"key:{IDS[2]}")
    assert versions.revoked_since(NOW) == [f"key:{IDS[2]}"]


def test_a_key_of_before_is_rotated_like_any_other(migrated: Database) -> None:
    keys = ApiKeys(migrated, _pepper(migrated), lambda: NOW + timedelta(days=1), lambda _: False)
    old = keys.get(IDS[1])
    assert (old.version, old.usage_count, old.owner, old.created_by) == (1, 7, "bootstrap", "bootstrap")
    assert old.last_used_at == NOW
    key, _ = keys.rotate(ADMINISTRATOR, IDS[1], timedelta(hours=1))
    assert [(version.number, version.created_at) for version in key.versions] == [
        (2, NOW + timedelta(days=1)),
        (1, NOW),
    ]


def test_the_new_schema_is_the_declared_one(migrated: Database) -> None:
    inspector = sa.inspect(migrated.engine)
    for name in ("api_keys", "api_key_versions", "ended_credentials"):
        table = METADATA.tables[name]
        made = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
        assert made == {column.name: column.nullable for column in table.columns}
        indexes = {tuple(index["column_names"]) for index in inspector.get_indexes(name)}
        assert indexes >= {tuple(column.name for column in index.columns) for index in table.indexes}
    assert "first_versions" not in inspector.get_table_names()
    assert peppers.name in inspector.get_table_names()
    with migrated.write() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.execute(sa.text("UPDATE api_key_versions SET key_id = 'nobody'"))
