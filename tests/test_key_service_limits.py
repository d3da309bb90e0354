"""What keeps a stolen service identity from emptying the keyring unseen; and that destroyed is destroyed."""

import threading
import time
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from services.secrets.unwrap_limit import UnwrapLimit, UnwrapLimited
from strongroom.rates import Rate
from strongroom.secrets.v1 import keys_pb2 as pb
from tests import postgresql
from tests.secrets_installation import Installation, reference

pytestmark = pytest.mark.row("S4.6")


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Installation:
    url = None
    if request.param == "postgresql":
        server: postgresql.Server = request.getfixturevalue("postgresql_server")
        url = server.create_database()
    return Installation(tmp_path, url)


def test_a_destroyed_kek_is_never_made_again(installation: Installation) -> None:
    destroyed = (grpc.StatusCode.FAILED_PRECONDITION, "KEK_DESTROYED")
    with installation.serving() as address:
        models, auth = installation.caller("models", address), installation.caller("auth", address)
        models("CreateKek", kek_id="k")
        [key] = models.generate("k", "c")
        models("DestroyKek", kek_id="k")
        models("DestroyKek", kek_id="k")
        models("DestroyKek", kek_id="before-it-was-made")
        assert models.refusal("CreateKek", kek_id="k") == destroyed
        assert auth("CreateKek", kek_id="k").version == 1
    with installation.serving() as address:
        models = installation.caller("models", address)
        for kek_id in ("k", "before-it-was-made"):
            assert models.refusal("CreateKek", kek_id=kek_id) == destroyed
            assert models.refusal("GenerateKeys", kek_id=kek_id, contexts=["c"])[1] == "KEK_NOT_FOUND"
            assert models.refusal("RotateKek", kek_id=kek_id)[1] == "KEK_NOT_FOUND"
        assert models.refusal("UnwrapKeys", **reference(key.key_id, "c"))[1] == "KEY_NOT_FOUND"


def test_of_making_and_destroying_at_once_destroying_wins(installation: Installation) -> None:
    with installation.serving() as address:
        models = installation.caller("models", address)

        def make(kek_id: str) -> None:
            for _ in range(5):
                with suppress(grpc.RpcError):
                    models("CreateKek", kek_id=kek_id)

        for number in range(10):
            thread = threading.Thread(target=make, args=(f"k{number}",))
            thread.start()
            models("DestroyKek", kek_id=f"k{number}")
            thread.join()
            assert models.refusal("CreateKek", kek_id=f"k{number}")[1] == "KEK_DESTROYED"
            assert models.refusal("GenerateKeys", kek_id=f"k{number}", contexts=["c"])[1] == "KEK_NOT_FOUND"


def test_a_service_that_unwraps_too_much_is_slowed_down_and_others_are_not(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    installation.settings = installation.settings.model_copy(update={"unwrap_limit": "5/hour"})
    with installation.serving() as address:
        models, auth = installation.caller("models", address), installation.caller("auth", address)
        for caller in (models, auth):
            caller("CreateKek", kek_id="k")
        keys = models.generate("k", *"abcd")
        asked = [pb.KeyReference(key_id=key.key_id, context=context) for key, context in zip(keys, "abcd", strict=True)]
        ciphertext = models("Encrypt", kek_id="k", plaintext=b"x", context="c").ciphertext
        assert len(models("UnwrapKeys", keys=asked).keys) == 4
        limited = (grpc.StatusCode.RESOURCE_EXHAUSTED, "UNWRAP_LIMITED")
        assert models.refusal("UnwrapKeys", keys=asked) == limited
        assert models("Decrypt", ciphertext=ciphertext, context="c").plaintext == b"x"
        assert models.refusal("Decrypt", ciphertext=ciphertext, context="c") == limited
        [key] = auth.generate("k", "c")
        assert auth.unwrap(key.key_id, "c") == key.key
        # Making keys gives nothing away.
        assert models.generate("k", "c")


def test_every_unwrapping_and_destroying_is_in_the_audit_log_with_the_keys(tmp_path: Path) -> None:
    installation = Installation(tmp_path)
    with installation.serving() as address:
        models = installation.caller("models", address)
        models("CreateKek", kek_id="k")
        one, two = models.generate("k", "a", "b")
        models("UnwrapKeys", keys=[pb.KeyReference(key_id=one.key_id, context="a")])
        models.refusal("UnwrapKeys", **reference(two.key_id, "another context"))
        models("DestroyKeys", key_ids=[two.key_id])
        models("DestroyKek", kek_id="k")
    events = installation.sql(
        "SELECT principal, resource, outcome, reason FROM audit_events "
        "WHERE method LIKE '%UnwrapKeys' OR method LIKE '%DestroyKe%' ORDER BY time, sequence"
    )
    assert events == [
        ("models", f"keys/{one.key_id}", "allowed", ""),
        ("models", f"keys/{two.key_id}", "failed", "KEY_NOT_FOUND"),
        ("models", f"keys/{two.key_id}", "allowed", ""),
        ("models", "keks/k", "allowed", ""),
    ]
    for _, content in installation.files():
        assert one.key not in content


def test_the_bucket_fills_evenly_and_a_batch_larger_than_it_is_served_when_it_is_full() -> None:
    now = [0.0]
    limit = UnwrapLimit(Rate(requests=10, seconds=10), lambda: now[0])
    limit.take("models", 10)
    with pytest.raises(UnwrapLimited) as caught:
        limit.take("models", 1)
    assert caught.value.retry_after == pytest.approx(1)
    now[0] += 1
    limit.take("models", 1)
    now[0] += 10
    limit.take("models", 25)
    with pytest.raises(UnwrapLimited):
        limit.take("models", 1)
    now[0] += 26
    limit.take("models", 10)
    UnwrapLimit(None, time.monotonic).take("models", 10**9)


def test_the_setting_is_checked_at_the_start(tmp_path: Path) -> None:
    settings = Installation(tmp_path).settings
    with pytest.raises(ValueError, match="N/second"):
        type(settings)(**{**settings.model_dump(), "unwrap_limit": "many"})
