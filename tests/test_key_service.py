"""The key service: who may unwrap what, and what is left when a key is destroyed."""

from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from services.secrets import envelope
from services.shared.channels import service_channel
from services.shared.tokens import ServiceIdentity
from strongroom.secrets.v1 import keys_pb2 as pb
from strongroom.secrets.v1 import keys_pb2_grpc
from tests.test_secrets_vault import Installation


class Caller:
    """A service that calls the key service."""

    def __init__(self, name: str, installation: Installation, address: str) -> None:
        identity = ServiceIdentity.load(name, installation.folder / "keys")
        self.stub = keys_pb2_grpc.KeyServiceStub(service_channel(address, "secrets", identity))

    def __call__(self, method: str, **fields):
        return getattr(self.stub, method)(getattr(pb, f"{method}Request")(**fields))

    def generate(self, kek_id: str, *contexts: str) -> list[pb.Key]:
        return list(self("GenerateKeys", kek_id=kek_id, contexts=contexts).keys)

    def unwrap(self, key_id: str, context: str) -> bytes:
        return self("UnwrapKeys", keys=[pb.KeyReference(key_id=key_id, context=context)]).keys[0].key

    def reason(self, method: str, **fields) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self(method, **fields)
        info = error_details_pb2.ErrorInfo()
        rpc_status.from_call(caught.value).details[0].Unpack(info)
        return caught.value.code(), info.reason


KEY_NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Installation:
    return Installation(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def callers(installation: Installation) -> Iterator[dict[str, Caller]]:
    with installation.serving() as address:
        yield {name: Caller(name, installation, address) for name in ("models", "auth", "secrets")}


@pytest.fixture(scope="module")
def models(callers: dict[str, Caller]) -> Caller:
    return callers["models"]


def reference(key_id: str, context: str) -> dict:
    return {"keys": [pb.KeyReference(key_id=key_id, context=context)]}


def test_a_generated_key_can_be_unwrapped_under_its_context_alone(models: Caller) -> None:
    assert models("CreateKek", kek_id="m1").version == 1
    one, two = models.generate("m1", "version one", "version two")
    assert len(one.key) == len(two.key) == 32
    assert one.key != two.key
    assert models.unwrap(one.key_id, "version one") == one.key
    assert models.reason("UnwrapKeys", **reference(one.key_id, "version two")) == KEY_NOT_FOUND


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
    assert models.reason("GenerateKeys", kek_id="none", contexts=["c"]) == missing
    assert models.reason("Encrypt", kek_id="none", plaintext=b"x", context="c") == missing


def test_a_service_sees_nothing_of_another(callers: dict[str, Caller]) -> None:
    models, auth = callers["models"], callers["auth"]
    models("CreateKek", kek_id="shared-name")
    [key] = models.generate("shared-name", "c")
    ciphertext = models("Encrypt", kek_id="shared-name", plaintext=b"x", context="c").ciphertext
    assert auth.reason("UnwrapKeys", **reference(key.key_id, "c")) == KEY_NOT_FOUND
    assert auth("DestroyKeys", key_ids=[key.key_id]).destroyed == 0
    assert list(auth("ListKeys", kek_id="shared-name").key_ids) == []
    auth("CreateKek", kek_id="shared-name")
    assert auth.reason("Decrypt", ciphertext=ciphertext, context="c")[1] == "CIPHERTEXT_INVALID"
    assert models.unwrap(key.key_id, "c") == key.key


def test_the_secrets_service_has_no_business_with_itself(callers: dict[str, Caller]) -> None:
    assert callers["secrets"].reason("CreateKek", kek_id="x")[0] == grpc.StatusCode.PERMISSION_DENIED


def test_a_destroyed_key_is_gone_and_stands_in_no_file(models: Caller, installation: Installation) -> None:
    models("CreateKek", kek_id="m4")
    kept, doomed = models.generate("m4", "kept", "doomed")
    assert models("DestroyKeys", key_ids=[doomed.key_id]).destroyed == 1
    assert models("DestroyKeys", key_ids=[doomed.key_id]).destroyed == 0
    assert models.reason("UnwrapKeys", **reference(doomed.key_id, "doomed")) == KEY_NOT_FOUND
    assert models.unwrap(kept.key_id, "kept") == kept.key
    for path in installation.database.parent.iterdir():
        assert doomed.key_id.encode() not in path.read_bytes(), path


def test_no_key_is_readable_on_disk(models: Caller, installation: Installation) -> None:
    models("CreateKek", kek_id="m5")
    [key] = models.generate("m5", "c")
    for path in installation.database.parent.iterdir():
        assert key.key not in path.read_bytes(), path


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
    assert models.reason("Decrypt", ciphertext=ciphertext, context="other") == invalid
    for damaged in (b"", ciphertext[:5], ciphertext[:-1], b"\x02" + ciphertext[1:], ciphertext + b"x"):
        assert models.reason("Decrypt", ciphertext=damaged, context="signing") == invalid


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
