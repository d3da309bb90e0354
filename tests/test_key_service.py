"""The key service: who may unwrap what, and what is left when a key is destroyed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf import message_factory
from hypothesis import given
from hypothesis import strategies as st

from services.secrets import envelope
from services.shared.channels import service_channel
from services.shared.tokens import ServiceIdentity
from strongroom.secrets.v1 import keys_pb2 as pb
from strongroom.secrets.v1 import secrets_pb2, secrets_pb2_grpc
from tests.secrets_installation import Caller, Installation, reference, refusal
from tests.serving import ADMINISTRATOR

KEY_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    return Installation(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def address(installation: Installation) -> Iterator[str]:
    with installation.serving() as address:
        yield address


@pytest.fixture(scope="module")
def callers(installation: Installation, address: str) -> dict[str, Caller]:
    return {name: installation.caller(name, address) for name in ("models", "auth", "secrets")}


@pytest.fixture(scope="module")
def models(callers: dict[str, Caller]) -> Caller:
    return callers["models"]


def test_a_generated_key_can_be_unwrapped_under_its_context_alone(models: Caller) -> None:
    assert models("CreateKek", kek_id="m1").version == 1
    one, two = models.generate("m1", "version one", "version two")
    assert len(one.key) == len(two.key) == 32
    assert one.key != two.key
    assert models.unwrap(one.key_id, "version one") == one.key
    assert models.refusal("UnwrapKeys", **reference(one.key_id, "version two")) == KEY_NOT_FOUND


def test_creating_a_kek_twice_keeps_it(models: Caller) -> None:
    models("CreateKek", kek_id="m2")
    [key] = models.generate("m2", "c")
    assert models("CreateKek", kek_id="m2").version == 1
    assert models.unwrap(key.key_id, "c") == key.key


def test_a_batch_comes_back_in_order(models: Caller) -> None:
    models("CreateKek", kek_id="m3")
    keys = models.generate("m3", *[f"c{number}" for number in range(50)])
    asked = [pb.KeyReference(key_id=key.key_id, context=f"c{number}") for number, key in enumerate(keys)]
    asked.reverse()
    answer = models("UnwrapKeys", keys=asked).keys
    assert [key.key for key in answer] == [key.key for key in reversed(keys)]


def test_an_unknown_kek_is_not_found(models: Caller) -> None:
    missing = (grpc.StatusCode.NOT_FOUND, "KEK_NOT_FOUND")
    assert models.refusal("GenerateKeys", kek_id="none", contexts=["c"]) == missing
    assert models.refusal("Encrypt", kek_id="none", plaintext=b"x", context="c") == missing


def test_a_service_sees_nothing_of_another(callers: dict[str, Caller]) -> None:
    models, auth = callers["models"], callers["auth"]
    models("CreateKek", kek_id="shared-name")
    [key] = models.generate("shared-name", "c")
    ciphertext = models("Encrypt", kek_id="shared-name", plaintext=b"x", context="c").ciphertext
    assert auth.refusal("UnwrapKeys", **reference(key.key_id, "c")) == KEY_NOT_FOUND
    assert auth("DestroyKeys", key_ids=[key.key_id]).destroyed == 0
    assert list(auth("ListKeys", kek_id="shared-name").key_ids) == []
    missing = (grpc.StatusCode.NOT_FOUND, "KEK_NOT_FOUND")
    assert auth.refusal("GenerateKeys", kek_id="shared-name", contexts=["c"]) == missing
    assert auth.refusal("Encrypt", kek_id="shared-name", plaintext=b"x", context="c") == missing
    auth("CreateKek", kek_id="shared-name")
    assert auth.refusal("Decrypt", ciphertext=ciphertext, context="c")[1] == "CIPHERTEXT_INVALID"
    assert models.unwrap(key.key_id, "c") == key.key


def test_the_secrets_service_has_no_business_with_itself(callers: dict[str, Caller]) -> None:
    assert callers["secrets"].refusal("CreateKek", kek_id="x")[0] == grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "method", list(pb.DESCRIPTOR.services_by_name["KeyService"].methods), ids=lambda method: method.name
)
def test_no_user_reaches_the_key_service(installation: Installation, address: str, method) -> None:
    service_only = (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_ONLY")
    request = message_factory.GetMessageClass(method.input_type)()
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}", type(request).SerializeToString
        )
        # Full access, as an identity token and with an impostor's id.
        for user in (ADMINISTRATOR, replace(ADMINISTRATOR, id="models")):
            metadata = installation.tokens.metadata("secrets", user)
            assert refusal(lambda metadata=metadata: call(request, metadata=metadata, timeout=10)) == service_only
        nobody = (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING")
        assert refusal(lambda: call(request, timeout=10)) == nobody


def test_services_do_not_read_secrets(installation: Installation, address: str) -> None:
    identity = ServiceIdentity.load("models", installation.identities)
    stub = secrets_pb2_grpc.SecretServiceStub(service_channel(address, "secrets", identity))
    not_allowed = (grpc.StatusCode.PERMISSION_DENIED, "SERVICE_NOT_ALLOWED")
    assert refusal(lambda: stub.GetSecret(secrets_pb2.GetSecretRequest(name="any"))) == not_allowed


def test_of_a_batch_that_names_an_unknown_key_nothing_is_unwrapped(models: Caller) -> None:
    models("CreateKek", kek_id="m9")
    [key] = models.generate("m9", "c")
    asked = [pb.KeyReference(key_id=key_id, context="c") for key_id in (key.key_id, "unknown")]
    assert models.refusal("UnwrapKeys", keys=asked) == KEY_NOT_FOUND


def test_a_destroyed_key_is_gone_and_stands_in_no_file(models: Caller, installation: Installation) -> None:
    models("CreateKek", kek_id="m4")
    kept, doomed = models.generate("m4", "kept", "doomed")
    [[wrapped]] = installation.sql(f"SELECT wrapped FROM keys WHERE id = '{doomed.key_id}'")  # noqa: S608
    assert any(wrapped in content for _, content in installation.files())
    assert models("DestroyKeys", key_ids=[doomed.key_id]).destroyed == 1
    assert models("DestroyKeys", key_ids=[doomed.key_id]).destroyed == 0
    assert models.refusal("UnwrapKeys", **reference(doomed.key_id, "doomed")) == KEY_NOT_FOUND
    assert models.unwrap(kept.key_id, "kept") == kept.key
    for path, content in installation.files():
        assert wrapped not in content, path
    # Its id may be left in the audit log, which tells of every unwrapping.
    assert installation.sql(f"SELECT id FROM keys WHERE id = '{doomed.key_id}'") == []  # noqa: S608


def test_no_key_is_readable_on_disk(models: Caller, installation: Installation) -> None:
    models("CreateKek", kek_id="m5")
    [key] = models.generate("m5", "c")
    for path, content in installation.files():
        assert key.key not in content, path


def test_keys_are_listed_by_age(models: Caller) -> None:
    models("CreateKek", kek_id="m6")
    made = [key.key_id for key in models.generate("m6", *[f"c{number}" for number in range(5)])]
    assert sorted(models("ListKeys", kek_id="m6").key_ids) == sorted(made)
    assert list(models("ListKeys", kek_id="m6", min_age_seconds=3600).key_ids) == []
    after = sorted(made)[2]
    assert list(models("ListKeys", kek_id="m6", page_token=after).key_ids) == sorted(made)[3:]


def test_a_long_listing_is_paged(models: Caller) -> None:
    models("CreateKek", kek_id="m7")
    made = {key.key_id for key in models.generate("m7", *[f"c{number}" for number in range(1000)])}
    made |= {key.key_id for key in models.generate("m7", "one more")}
    first = models("ListKeys", kek_id="m7")
    second = models("ListKeys", kek_id="m7", page_token=first.next_page_token)
    assert (len(first.key_ids), second.next_page_token) == (1000, "")
    assert {*first.key_ids, *second.key_ids} == made


def test_small_values_are_encrypted_under_a_context(models: Caller) -> None:
    models("CreateKek", kek_id="m8")
    ciphertext = models("Encrypt", kek_id="m8", plaintext=b"private key", context="signing").ciphertext
    assert b"private key" not in ciphertext
    assert models("Decrypt", ciphertext=ciphertext, context="signing").plaintext == b"private key"
    invalid = (grpc.StatusCode.INVALID_ARGUMENT, "CIPHERTEXT_INVALID")
    assert models.refusal("Decrypt", ciphertext=ciphertext, context="other") == invalid
    for damaged in (b"", ciphertext[:5], ciphertext[:-1], b"\x02" + ciphertext[1:], ciphertext + b"x"):
        assert models.refusal("Decrypt", ciphertext=damaged, context="signing") == invalid


def test_keys_survive_a_restart(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with installation.serving() as address:
        models = installation.caller("models", address)
        models("CreateKek", kek_id="m")
        [key] = models.generate("m", "c")
        ciphertext = models("Encrypt", kek_id="m", plaintext=b"private key", context="c").ciphertext
    with installation.serving() as address:
        models = installation.caller("models", address)
        assert models.unwrap(key.key_id, "c") == key.key
        assert models("Decrypt", ciphertext=ciphertext, context="c").plaintext == b"private key"


_parts = st.lists(st.text(max_size=8), max_size=4)


@given(_parts, _parts)
def test_no_two_lists_of_parts_bind_to_the_same_bytes(one: list[str], two: list[str]) -> None:
    assert (envelope.bind(*one) == envelope.bind(*two)) is (one == two)


@given(st.binary(max_size=200), st.binary(max_size=20), st.data())
def test_any_changed_byte_is_noticed(plaintext: bytes, aad: bytes, data: st.DataObject) -> None:
    key = envelope.new_key()
    sealed = envelope.seal(key, plaintext, aad)
    assert envelope.unseal(key, sealed, aad) == plaintext
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
    for attempt in ((key, changed, aad), (key, sealed, aad + b"x"), (envelope.new_key(), sealed, aad)):
        with pytest.raises(envelope.EnvelopeError):
            envelope.unseal(*attempt)
    with pytest.raises(envelope.EnvelopeError):
        envelope.unseal(key, sealed[: data.draw(st.integers(0, len(sealed) - 1))], aad)
