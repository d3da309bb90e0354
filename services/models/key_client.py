"""The keys that the secrets service keeps for us."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from services.models.expiring_cache import ExpiringCache
from services.shared.errors import DataLoss, Unavailable
from strongroom.secrets.v1 import keys_pb2 as pb
from strongroom.secrets.v1 import keys_pb2_grpc

# Seconds for which an unwrapped key may be used without asking again: how long a destroyed one lives on here.
KEY_SECONDS = 60.0
_CACHED_KEYS = 1024
_MOST_IDS = 1000


class KeyMissing(DataLoss):
    """A key is gone, and with it whatever it encrypted."""

    reason = "KEY_MISSING"


class KeyServiceUnavailable(Unavailable):
    """The secrets service does not answer."""

    reason = "DEPENDENCY_UNAVAILABLE"


@dataclass(frozen=True)
class WrappedKey:
    """A new key, 32 bytes, and the id under which it can be had again."""

    key_id: str
    key: bytes = field(repr=False)


class KeyClient:
    """KeyService, with a short memory. All methods may raise KeyServiceUnavailable."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = keys_pb2_grpc.KeyServiceStub(channel)
        self._cache: ExpiringCache[str, tuple[str, bytes]] = ExpiringCache(_CACHED_KEYS, KEY_SECONDS)

    def create_kek(self, kek_id: str) -> None:
        """Creates a key-encryption key, or keeps the one that is there."""
        with _translated():
            self._stub.CreateKek(pb.CreateKekRequest(kek_id=kek_id))

    def generate(self, kek_id: str, context: str) -> WrappedKey:
        """Makes a key that can be had only under this context again."""
        with _translated():
            [key] = self._stub.GenerateKeys(pb.GenerateKeysRequest(kek_id=kek_id, contexts=[context])).keys
        self._cache.put(key.key_id, (context, key.key))
        return WrappedKey(key.key_id, key.key)

    def unwrap(self, key_id: str, context: str) -> bytes:
        """The key. KeyMissing if it was destroyed or belongs to another context."""
        known_context, key = self._cache.get(key_id) or ("", b"")
        if known_context == context:
            return key
        request = pb.UnwrapKeysRequest(keys=[pb.KeyReference(key_id=key_id, context=context)])
        with _translated():
            [unwrapped] = self._stub.UnwrapKeys(request).keys
        self._cache.put(key_id, (context, unwrapped.key))
        return unwrapped.key

    def destroy(self, key_ids: Sequence[str]) -> int:
        """Destroys keys for good; those that are gone already count for nothing."""
        destroyed = 0
        for start in range(0, len(key_ids), _MOST_IDS):
            portion = key_ids[start : start + _MOST_IDS]
            for key_id in portion:
                self._cache.drop(key_id)
            with _translated():
                destroyed += self._stub.DestroyKeys(pb.DestroyKeysRequest(key_ids=portion)).destroyed
        return destroyed

    def list(self, kek_id: str, min_age_seconds: int) -> Iterator[str]:
        """The ids of the keys under a key-encryption key that are at least so old."""
        token = ""
        while True:
            request = pb.ListKeysRequest(kek_id=kek_id, page_token=token, min_age_seconds=min_age_seconds)
            with _translated():
                page = self._stub.ListKeys(request)
            yield from page.key_ids
            token = page.next_page_token
            if not token:
                return

    def forget_expired(self) -> None:
        self._cache.forget_expired()


@contextmanager
def _translated() -> Iterator[None]:
    """Turns the answers that are to be expected into errors of the domain."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        if code == grpc.StatusCode.NOT_FOUND:
            raise KeyMissing("The key of this data is gone.") from None
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise KeyServiceUnavailable("The secrets service does not answer. Try again.") from None
        raise
