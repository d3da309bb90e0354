"""KEKs rotate: every key stays what it was, under another wrapping; on SQLite and on PostgreSQL."""

import threading
from collections.abc import Iterator

import grpc
import pytest

from strongroom.secrets.v1 import keys_pb2 as pb
from tests import postgresql
from tests.secrets_installation import Caller, Installation, reference

PASSWORD = pb.KekPassword(password="correct horse", scrypt=pb.Scrypt())


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path_factory) -> Installation:
    url = None
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    return Installation(tmp_path_factory.mktemp("rotation"), url)


@pytest.fixture(scope="module")
def callers(installation: Installation) -> Iterator[dict[str, Caller]]:
    with installation.serving() as address:
        yield {name: installation.caller(name, address) for name in ("models", "auth")}


@pytest.fixture(scope="module")
def models(callers: dict[str, Caller]) -> Caller:
    return callers["models"]


@pytest.mark.row("B2")
def test_a_rotation_keeps_every_key_and_its_context(models: Caller) -> None:
    models("CreateKek", kek_id="r1")
    made = models.generate("r1", *[f"c{number}" for number in range(1000)])
    done = models("RotateKek", kek_id="r1")
    assert (done.from_version, done.to_version, done.rewrapped, done.left) == (1, 2, 1000, 0)
    for number in (0, 500, 999):
        assert models.unwrap(made[number].key_id, f"c{number}") == made[number].key
        assert models.refusal("UnwrapKeys", **reference(made[number].key_id, "c1000"))[1] == "KEY_NOT_FOUND"
    assert models("CreateKek", kek_id="r1").version == 2
    again = models("RewrapKeys", kek_id="r1")
    assert (again.version, again.rewrapped, again.left) == (2, 0, 0)


def test_a_rotation_by_password_is_like_any_other(models: Caller) -> None:
    models("CreateKek", kek_id="r2")
    [key] = models.generate("r2", "c")
    pbkdf2 = pb.KekPassword(password="x", pbkdf2=pb.Pbkdf2(hash_algorithm="sha512", iterations=100_000))
    for password in (PASSWORD, PASSWORD, pbkdf2):
        assert models("RotateKek", kek_id="r2", password=password).rewrapped == 1
        assert models.unwrap(key.key_id, "c") == key.key


@pytest.mark.parametrize(
    "password",
    [
        pb.KekPassword(password="", scrypt=pb.Scrypt()),
        pb.KekPassword(password="x" * 1025, scrypt=pb.Scrypt()),
        pb.KekPassword(password="x"),
        pb.KekPassword(password="x", pbkdf2=pb.Pbkdf2(hash_algorithm="md5", iterations=100_000)),
        pb.KekPassword(password="x", pbkdf2=pb.Pbkdf2(hash_algorithm="sha512", iterations=1000)),
        pb.KekPassword(password="x", pbkdf2=pb.Pbkdf2(hash_algorithm="sha512", iterations=2**31)),
    ],
)
def test_what_a_password_may_cost_is_bounded(models: Caller, password: pb.KekPassword) -> None:
    models("CreateKek", kek_id="r3")
    refused = models.refusal("RotateKek", kek_id="r3", password=password)
    assert refused[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert models("CreateKek", kek_id="r3").version == 1


def test_a_version_that_encrypted_values_is_kept_for_them(callers: dict[str, Caller]) -> None:
    """Those are with the caller, so they can't be wrapped anew."""
    auth = callers["auth"]
    auth("CreateKek", kek_id="r4")
    ciphertext = auth("Encrypt", kek_id="r4", plaintext=b"private key", context="c").ciphertext
    auth("RotateKek", kek_id="r4")
    newer = auth("Encrypt", kek_id="r4", plaintext=b"another", context="c").ciphertext
    auth("RotateKek", kek_id="r4")
    assert auth("Decrypt", ciphertext=ciphertext, context="c").plaintext == b"private key"
    assert auth("Decrypt", ciphertext=newer, context="c").plaintext == b"another"


def test_keys_of_the_callers_own_are_wrapped_like_any_others(models: Caller) -> None:
    models("CreateKek", kek_id="r5")
    value = b"locked a second time" * 4
    [key_id] = models("WrapKeys", kek_id="r5", keys=[pb.KeyToWrap(context="c", key=value)]).key_ids
    models("RotateKek", kek_id="r5")
    assert models.unwrap(key_id, "c") == value
    short = models.refusal("WrapKeys", kek_id="r5", keys=[pb.KeyToWrap(context="c", key=b"short")])
    assert short[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_destroyed_kek_takes_its_keys_with_it_and_no_others(callers: dict[str, Caller]) -> None:
    models, auth = callers["models"], callers["auth"]
    for caller in (models, auth):
        caller("CreateKek", kek_id="r6")
    [mine], [other] = models.generate("r6", "c"), auth.generate("r6", "c")
    models("RotateKek", kek_id="r6")
    assert models("DestroyKek", kek_id="r6").destroyed_keys == 1
    assert models("DestroyKek", kek_id="r6").destroyed_keys == 0
    assert models.refusal("UnwrapKeys", **reference(mine.key_id, "c"))[1] == "KEY_NOT_FOUND"
    for method, fields in (("RotateKek", {}), ("RewrapKeys", {}), ("GenerateKeys", {"contexts": ["c"]})):
        assert models.refusal(method, kek_id="r6", **fields)[1] == "KEK_NOT_FOUND"
    assert auth.unwrap(other.key_id, "c") == other.key


def test_keys_that_are_made_during_rotations_open_afterwards(models: Caller) -> None:
    models("CreateKek", kek_id="r7")
    made: list[tuple[str, pb.Key]] = []
    failures: list[BaseException] = []

    def generate(worker: int) -> None:
        try:
            for turn in range(15):
                context = f"{worker}-{turn}"
                [key] = models.generate("r7", context)
                assert models.unwrap(key.key_id, context) == key.key
                made.append((context, key))
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=generate, args=[number]) for number in range(3)]
    for worker in workers:
        worker.start()
    rotations = 0
    while any(worker.is_alive() for worker in workers):
        rotations += models("RotateKek", kek_id="r7").to_version > 0
    for worker in workers:
        worker.join()
    assert failures == []
    assert rotations > 1
    assert models("RotateKek", kek_id="r7").left == 0
    for context, key in made:
        assert models.unwrap(key.key_id, context) == key.key


def test_two_rotations_at_a_time_make_two_versions(models: Caller) -> None:
    models("CreateKek", kek_id="r8")
    [key] = models.generate("r8", "c")
    versions: list[int] = []

    def rotate() -> None:
        versions.append(models("RotateKek", kek_id="r8").to_version)

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [2, 3, 4, 5]
    assert models.unwrap(key.key_id, "c") == key.key
