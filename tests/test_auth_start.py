"""Auth before its keys can be decrypted, and a database that fails for a while."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from services.auth import bootstrap
from services.auth.tables import api_keys
from services.shared.database import Database
from services.shared.service import Server
from strongroom.auth.v1 import tokens_pb2 as pb
from strongroom.auth.v1 import tokens_pb2_grpc
from tests.auth_installation import BOOTSTRAP_KEY, Auth, auth_settings, reason_of
from tests.serving import make_identities

MIGRATIONS = Path(bootstrap.__file__).parent / "migrations"


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Auth]:
    """An auth service that no secrets service answers."""
    make_identities(tmp_path / "keys")
    url = f"sqlite:///{tmp_path}/db/starting.db"
    settings = auth_settings(tmp_path, database_url=url, secrets_addr="127.0.0.1:1", bootstrap_api_key=BOOTSTRAP_KEY)
    server = Server(bootstrap.build(settings), settings)
    server.start()
    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address) as channel:
        yield Auth(address, channel, tmp_path / "db" / "starting-auth.db")
    server.stop(grace=0)


def test_nobody_gets_in_before_the_keys_are_there(starting: Auth) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        starting.check_key(BOOTSTRAP_KEY)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "AUTH_STARTING"
    assert starting.check().denied_response.status.code == 401
    with pytest.raises(grpc.RpcError) as caught:
        tokens_pb2_grpc.TokenServiceStub(starting.channel).GetKeySet(pb.GetKeySetRequest())
    assert reason_of(caught.value) == "AUTH_STARTING"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database.open(f"sqlite:///{tmp_path}/usage.db", service="auth", migrations=MIGRATIONS)
    yield opened
    opened.close()


def test_the_migrations_make_the_declared_tables(database: Database) -> None:
    inspector = sa.inspect(database.engine)
    for table in api_keys.metadata.sorted_tables:
        made = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert {name: column["nullable"] for name, column in made.items()} == {
            column.name: column.nullable for column in table.columns
        }
    indexes = {tuple(index["column_names"]) for index in inspector.get_indexes("api_keys")}
    assert {("revoked_at",), ("owner",), ("created_by",)} <= indexes
    unique = {tuple(constraint["column_names"]) for constraint in inspector.get_unique_constraints("api_key_versions")}
    assert unique == {("prefix",), ("key_hash",), ("key_id", "number")}
