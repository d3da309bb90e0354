"""The keys that the secrets service keeps for us."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc

from services.models.expiring_cache import ExpiringCache
from services.shared.errors import DataLoss
from strongroom.secrets.v1 import keys_pb2 as pb
from strongroom.secrets.v1 import keys_pb2_grpc

# Seconds for which an unwrapped key may be used without asking again: how long a destroyed one lives on here.
KEY_SECONDS = 60.0
_CACHED_KEYS = 1024
_MOST_IDS = 1000


class KeyMissing(DataLoss):
    """A key is gone, and with it whatever it encrypted."""

    reason = "KEY_MISSING"


@dataclass(frozen=True)
class WrappedKey:
    """A new key, 32 bytes, and the id under which it can be had again."""

    key_id: str
    key: bytes = field(repr=False)


class KeyClient:
    """KeyService, with a short memory. All methods may raise grpc.RpcError, UNAVAILABLE above all."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = keys_pb2_grpc.KeyServiceStub(channel)
        self._cache: ExpiringCache[str, tuple[str, bytes]] = ExpiringCache(_CACHED_KEYS, KEY_SECONDS)

    def create_kek(self, kek_id: str) -> None:
        """Creates a key-encryption key, or keeps the one that is there."""
        self._stub.CreateKek(pb.CreateKekRequest(kek_id=kek_id))

    def generate(self, kek_id: str, context: str) -> WrappedKey:
        """Makes a key that can be had only under this context again."""
        [key] = self._stub.GenerateKeys(pb.GenerateKeysRequest(kek_id=kek_id, contexts=[context])).keys
        self._cache.put(key.key_id, (context, key.key))
        return WrappedKey(key.key_id, key.key)

    def unwrap(self, key_id: str, context: str) -> bytes:
        """The key. KeyMissing if it was destroyed or belongs to another context."""
        known_context, key = self._cache.get(key_id) or ("", b"")
        if known_context == context:
            return key
        request = pb.UnwrapKeysRequest(keys=[pb.KeyReference(key_id=key_id, context=context)])
        try:
            [unwrapped] = self._stub.UnwrapKeys(request).keys
        except grpc.RpcError as error:
            if isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.NOT_FOUND:
                raise KeyMissing("The key of this data is gone.", key=key_id) from None
            raise
        self._cache.put(key_id, (context, unwrapped.key))
        return unwrapped.key

    def destroy(self, key_ids: Sequence[str]) -> int:
        """Destroys keys for good; those that are gone already count for nothing."""
        destroyed = 0
        for start in range(0, len(key_ids), _MOST_IDS):
            portion = key_ids[start : start + _MOST_IDS]
            for key_id in portion:
                self._cache.drop(key_id)
            destroyed += self._stub.DestroyKeys(pb.DestroyKeysRequest(key_ids=portion)).destroyed
        return destroyed

    def list(self, kek_id: str, min_age_seconds: int) -> Iterator[str]:
        """The ids of the keys under a key-encryption key that are at least so old."""
        token = ""
        while True:
            request = pb.ListKeysRequest(kek_id=kek_id, page_token=token, min_age_seconds=min_age_seconds)
            page = self._stub.ListKeys(request)
            yield from page.key_ids
            token = page.next_page_token
            if not token:
                return

    def forget_expired(self) -> None:
        self._cache.forget_expired()
