"""What somebody who can write to the database achieves: refusals, never another secret's or a changed value."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.secrets_installation import PLANTED, Client, Installation, reference

SECRET_DAMAGED = (grpc.StatusCode.DATA_LOSS, "SECRET_DAMAGED")
KEK_DAMAGED = (grpc.StatusCode.DATA_LOSS, "KEK_DAMAGED")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def address(installation: Installation) -> Iterator[str]:
    with installation.serving() as address:
        yield address


@pytest.fixture
def client(installation: Installation, address: str) -> Client:
    client = installation.client(address)
    client("CreateSecret", name="high", data={"password": PLANTED})
    client("CreateSecret", name="low", data={"colour": "red"})
    client("UpdateSecret", name="low", data={"colour": "blue"})
    return client


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE secret_versions SET sealed = zeroblob(40) WHERE secret_name = 'low'",
        "UPDATE secret_versions SET sealed = substr(sealed, 1, length(sealed) - 1) WHERE secret_name = 'low'",
        "UPDATE secret_versions SET sealed = x'00' WHERE secret_name = 'low'",
        # Another secret's value in its place.
        "UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE secret_name = 'high')"
        " WHERE secret_name = 'low'",
        # An earlier value as the current one.
        "UPDATE secret_versions SET sealed = (SELECT sealed FROM secret_versions WHERE secret_name = 'low'"
        " AND version = 1) WHERE secret_name = 'low' AND version = 2",
        # The data key: changed, another secret's, under another owner.
        "UPDATE keys SET wrapped = zeroblob(60) WHERE id = (SELECT key_id FROM secrets WHERE name = 'low')",
        "UPDATE keys SET wrapped = (SELECT wrapped FROM keys JOIN secrets ON key_id = id WHERE name = 'high')"
        " WHERE id = (SELECT key_id FROM secrets WHERE name = 'low')",
        "UPDATE secrets SET uid = 'another' WHERE name = 'low'",
    ],
)
def test_a_changed_row_is_not_served(installation: Installation, client: Client, damage: str) -> None:
    installation.sql(damage)
    assert client.refusal("GetSecret", name="low") == SECRET_DAMAGED
    assert client.value("high") == {"password": PLANTED}


def test_a_secret_under_the_name_of_another_is_not_served(installation: Installation, client: Client) -> None:
    # Who may read `low` alone would read `high`.
    for old, new in (("low", "away"), ("high", "low")):
        installation.sql(
            f"UPDATE secret_versions SET secret_name = '{new}' WHERE secret_name = '{old}'",  # noqa: S608
            f"UPDATE secrets SET name = '{new}' WHERE name = '{old}'",  # noqa: S608
        )
    assert client.refusal("GetSecret", name="low") == SECRET_DAMAGED


def test_nothing_is_added_to_a_secret_whose_key_is_damaged(installation: Installation, client: Client) -> None:
    installation.sql("UPDATE keys SET wrapped = zeroblob(60)")
    assert client.refusal("UpdateSecret", name="low", data={}) == SECRET_DAMAGED
    assert len(client("ListSecretVersions", name="low").versions) == 2
    assert client("DestroySecret", name="low").destroyed_versions == 2


def test_a_damaged_kek_is_told_apart_from_a_wrong_request(
    installation: Installation, address: str, client: Client
) -> None:
    models = installation.caller("models", address)
    models("CreateKek", kek_id="m")
    [key] = models.generate("m", "c")
    ciphertext = models("Encrypt", kek_id="m", plaintext=b"private key", context="c").ciphertext
    installation.sql("UPDATE kek_versions SET wrapped = zeroblob(60)")
    assert models.refusal("UnwrapKeys", **reference(key.key_id, "c")) == KEK_DAMAGED
    assert models.refusal("GenerateKeys", kek_id="m", contexts=["c"]) == KEK_DAMAGED
    assert models.refusal("Decrypt", ciphertext=ciphertext, context="c") == KEK_DAMAGED
    assert client.refusal("GetSecret", name="high") == KEK_DAMAGED
    assert client.refusal("CreateSecret", name="new", data={}) == KEK_DAMAGED


@pytest.mark.parametrize(
    ("name", "kek_id", "place"),
    [("auth", "one", "owner = 'auth' AND kek_id = 'one'"), ("models", "two", "owner = 'models' AND kek_id = 'two'")],
)
def test_a_kek_in_the_place_of_another_is_not_used(
    installation: Installation, address: str, name: str, kek_id: str, place: str
) -> None:
    callers = {name: installation.caller(name, address) for name in ("auth", "models")}
    callers["models"]("CreateKek", kek_id="one")
    callers[name]("CreateKek", kek_id=kek_id)
    moved = "(SELECT wrapped FROM kek_versions WHERE owner = 'models' AND kek_id = 'one')"
    installation.sql(f"UPDATE kek_versions SET wrapped = {moved} WHERE {place}")  # noqa: S608
    assert callers[name].refusal("GenerateKeys", kek_id=kek_id, contexts=["c"]) == KEK_DAMAGED


def test_a_version_that_is_gone_is_damage(installation: Installation, client: Client) -> None:
    installation.sql("DELETE FROM secret_versions WHERE secret_name = 'low' AND version = 1")
    assert client.refusal("GetSecret", name="low", version=1) == SECRET_DAMAGED
    assert client.value("low") == {"colour": "blue"}
