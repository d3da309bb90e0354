"""The keys that the secrets service keeps for us."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc

from services.models.public_keys import PUBLIC_KEK, is_public, public_id, public_key
from services.shared.errors import DataLoss, Unavailable
from services.shared.expiring_cache import ExpiringCache
from services.shared.ids import new_id
from strongroom.secrets.v1 import keys_pb2 as pb
from strongroom.secrets.v1 import keys_pb2_grpc

# Seconds for which an unwrapped key may be used without asking again: how long a destroyed one lives on here.
KEY_SECONDS = 60.0
_CACHED_KEYS = 1024
_MOST_IDS = 1000
# For 20,000 keys, and a password with five million iterations before.
_ROTATION_SECONDS = 60.0


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


@dataclass(frozen=True)
class KekDerivation:
    """How a password becomes a key: by PBKDF2 with this hash, or without one by scrypt."""

    pbkdf2_hash: str = ""
    iterations: int = 0


@dataclass(frozen=True)
class KekStep:
    """Part of a rotation: `left` keys are under older versions; contexts of the `unbound` have to be named."""

    to_version: int
    rewrapped: int
    left: int
    unbound: list[str]


class KeyClient:
    """KeyService, with a short memory. All methods may raise KeyServiceUnavailable."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = keys_pb2_grpc.KeyServiceStub(channel)
        self._cache: ExpiringCache[str, tuple[str, bytes]] = ExpiringCache(_CACHED_KEYS, KEY_SECONDS)

    def create_kek(self, kek_id: str) -> int:
        """Creates a key-encryption key, or keeps the one that is there; its current version."""
        if kek_id == PUBLIC_KEK:
            return 0
        with _translated():
            return self._stub.CreateKek(pb.CreateKekRequest(kek_id=kek_id)).version

    def current_version(self, kek_id: str) -> int:
        """The version of a key-encryption key that keys are wrapped under; those that a rotation left are by then.

        Raises KeyMissing if it was destroyed.
        """
        return self.rewrap(kek_id, {}).to_version

    def generate(self, kek_id: str, context: str) -> WrappedKey:
        """Makes a key that can be had only under this context again."""
        if kek_id == PUBLIC_KEK:
            key_id = public_id(new_id())
            return WrappedKey(key_id, public_key(key_id))
        with _translated():
            [key] = self._stub.GenerateKeys(pb.GenerateKeysRequest(kek_id=kek_id, contexts=[context])).keys
        self._cache.put(key.key_id, (context, key.key))
        return WrappedKey(key.key_id, key.key)

    def wrap(self, kek_id: str, key: bytes, context: str) -> str:
        """Stores a value of 32 to 256 bytes like a generated key; the id under which `unwrap` returns it."""
        request = pb.WrapKeysRequest(kek_id=kek_id, keys=[pb.KeyToWrap(context=context, key=key)])
        with _translated():
            [key_id] = self._stub.WrapKeys(request).key_ids
        return key_id

    def unwrap(self, key_id: str, context: str) -> bytes:
        """The key. KeyMissing if it was destroyed or belongs to another context."""
        if is_public(key_id):
            return public_key(key_id)
        known_context, key = self._cache.get(key_id) or ("", b"")
        if known_context == context:
            return key
        request = pb.UnwrapKeysRequest(keys=[pb.KeyReference(key_id=key_id, context=context)])
        with _translated():
            [unwrapped] = self._stub.UnwrapKeys(request).keys
        self._cache.put(key_id, (context, unwrapped.key))
        return unwrapped.key

    def kek_of(self, key_id: str, context: str) -> str:
        """The key-encryption key that the key is under. KeyMissing as `unwrap`."""
        if is_public(key_id):
            return PUBLIC_KEK
        request = pb.UnwrapKeysRequest(keys=[pb.KeyReference(key_id=key_id, context=context)])
        with _translated():
            return self._stub.UnwrapKeys(request).keys[0].kek_id

    def destroy(self, key_ids: Sequence[str]) -> int:
        """Destroys keys for good; those that are gone already count for nothing."""
        destroyed = 0
        key_ids = [key_id for key_id in key_ids if not is_public(key_id)]
        for start in range(0, len(key_ids), _MOST_IDS):
            portion = key_ids[start : start + _MOST_IDS]
            for key_id in portion:
                self._cache.drop(key_id)
            with _translated():
                destroyed += self._stub.DestroyKeys(pb.DestroyKeysRequest(key_ids=portion)).destroyed
        return destroyed

    def rotate(self, kek_id: str, password: str = "", derivation: KekDerivation | None = None) -> KekStep:
        """Makes a new version of a key-encryption key, random or of a password, and wraps keys under it."""
        request = pb.RotateKekRequest(kek_id=kek_id)
        if derivation is not None:
            request.password.password = password
            if derivation.pbkdf2_hash:
                request.password.pbkdf2.hash_algorithm = derivation.pbkdf2_hash
                request.password.pbkdf2.iterations = derivation.iterations
            else:
                request.password.scrypt.SetInParent()
        with _translated():
            done = self._stub.RotateKek(request, timeout=_ROTATION_SECONDS)
        return KekStep(done.to_version, done.rewrapped, done.left, [])

    def rewrap(self, kek_id: str, contexts: Mapping[str, str]) -> KekStep:
        """Wraps more keys under the current version; `contexts` by key id, for those that a step called unbound."""
        named = [pb.KeyReference(key_id=key_id, context=context) for key_id, context in contexts.items()]
        with _translated():
            request = pb.RewrapKeysRequest(kek_id=kek_id, keys=named)
            done = self._stub.RewrapKeys(request, timeout=_ROTATION_SECONDS)
        return KekStep(done.version, done.rewrapped, done.left, list(done.unbound_key_ids))

    def destroy_kek(self, kek_id: str) -> int:
        """Destroys a key-encryption key with every key under it, for good; how many those were."""
        if kek_id == PUBLIC_KEK:
            return 0
        with _translated():
            return self._stub.DestroyKek(pb.DestroyKekRequest(kek_id=kek_id)).destroyed_keys

    def list(self, min_age_seconds: int) -> Iterator[str]:
        """The ids of all our keys that are at least so old."""
        token, more = "", True
        while more:
            request = pb.ListKeysRequest(page_token=token, min_age_seconds=min_age_seconds)
            with _translated():
                page = self._stub.ListKeys(request)
            yield from page.key_ids
            token, more = page.next_page_token, bool(page.next_page_token)

    def list_keks(self, min_age_seconds: int) -> Iterator[str]:
        """The ids of all our key-encryption keys that are at least so old."""
        token, more = "", True
        while more:
            request = pb.ListKeksRequest(page_token=token, min_age_seconds=min_age_seconds)
            with _translated():
                page = self._stub.ListKeks(request)
            yield from page.kek_ids
            token, more = page.next_page_token, bool(page.next_page_token)

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
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise KeyServiceUnavailable("Too many keys were needed in a short time. Try again in a moment.") from None
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise KeyServiceUnavailable("The secrets service does not answer. Try again.") from None
        raise
