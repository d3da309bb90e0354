"""The keys that open a version, and an upload that becomes one."""

import os
from typing import Protocol

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.models import access_codes
from services.models.access_codes import DATA_KEY_BYTES, AccessCode, AccessCodeRefused, Guesses
from services.models.chunk_keys import Domain
from services.models.key_client import KEY_SECONDS, KeyClient, KeyMissing, WrappedKey
from services.models.managers import Manager, Managers, data_key_context, domain_context
from services.models.public_keys import is_public
from services.shared.errors import FailedPrecondition
from services.shared.expiring_cache import ExpiringCache

_CACHED_KEYS = 256
_DOMAIN_OF_KEY = b"strongroom protected domain v1"


class AccessCodeUnsupported(FailedPrecondition):
    """The manager does not encrypt, so nothing in it can be protected."""

    reason = "MANAGER_NOT_ENCRYPTED"

    def __init__(self) -> None:
        super().__init__("This manager does not encrypt: access codes need one that does.")


class HasKeys(Protocol):
    """What has keys: ids of the secrets service's, and whose they are.

    Where both ids are one, the version is protected by an access code, and its domain secret follows from its data key.
    """

    @property
    def manager_id(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def data_key_id(self) -> str: ...
    @property
    def domain_key_id(self) -> str: ...


def protected(holder: HasKeys) -> bool:
    """Whether it takes an access code to open this."""
    return holder.data_key_id == holder.domain_key_id


def protected_secret(data_key: bytes) -> bytes:
    """The domain secret, 32 bytes, of the version that this data key belongs to alone."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_DOMAIN_OF_KEY).derive(data_key)


class VersionKeys:
    """Makes and opens data keys and dedup domains. All methods may raise KeyServiceUnavailable.

    Right codes are remembered as long as unwrapped keys are: by a fingerprint under a key of this process.
    """

    def __init__(self, keys: KeyClient, managers: Managers, guesses: Guesses) -> None:
        self._keys = keys
        self._managers = managers
        self._guesses = guesses
        self._fingerprint_key = os.urandom(32)
        self._opened: ExpiringCache[tuple[str, bytes], bytes] = ExpiringCache(_CACHED_KEYS, KEY_SECONDS)

    def new_data_key(self, manager: Manager, uid: str) -> WrappedKey:
        """A data key for the version of that id."""
        return self._keys.generate(manager.kek_id, data_key_context(manager.id, uid))

    def new_protected_key(self, manager: Manager, code: AccessCode) -> WrappedKey:
        """A data key that the code locks. Raises AccessCodeUnsupported."""
        if not manager.encrypted:
            raise AccessCodeUnsupported
        data_key, context = os.urandom(DATA_KEY_BYTES), _protected_context(manager.id)
        key_id = self._keys.wrap(manager.kek_id, access_codes.seal(code, data_key, context), context)
        self._opened.put((key_id, code.fingerprint(self._fingerprint_key)), data_key)
        return WrappedKey(key_id, data_key)

    def data_key(self, holder: HasKeys, code: AccessCode | None) -> bytes:
        """The data key, 32 bytes. Raises KeyMissing, AccessCodeRefused, AccessCodeThrottled."""
        self._refuse_public(holder)
        if not protected(holder):
            return self._keys.unwrap(holder.data_key_id, data_key_context(holder.manager_id, holder.uid))
        if code is None:
            raise AccessCodeRefused
        known = (holder.data_key_id, code.fingerprint(self._fingerprint_key))
        key = self._opened.get(known)
        if key is None:
            key = self._unlock(holder, code)
            self._opened.put(known, key)
        return key

    def kek_id(self, holder: HasKeys) -> str:
        """The key-encryption key that the data key is under. Raises KeyMissing."""
        if protected(holder):
            return self._keys.kek_of(holder.data_key_id, _protected_context(holder.manager_id))
        return self._keys.kek_of(holder.data_key_id, data_key_context(holder.manager_id, holder.uid))

    def domain(self, holder: HasKeys, code: AccessCode | None) -> Domain:
        """The dedup domain. Use it for one request: the secret in it may be destroyed. Raises as `data_key`."""
        self._refuse_public(holder)
        if protected(holder):
            secret = protected_secret(self.data_key(holder, code))
        else:
            secret = self._keys.unwrap(holder.domain_key_id, domain_context(holder.manager_id))
        return Domain(secret, holder.domain_key_id)

    def forget_expired(self) -> None:
        self._opened.forget_expired()

    def _refuse_public(self, holder: HasKeys) -> None:
        """Where keys are secret, who can write the database must not put data of their own under public ones."""
        names_public = is_public(holder.data_key_id) or is_public(holder.domain_key_id)
        if names_public and self._managers.get(holder.manager_id).encrypted:
            raise KeyMissing("The key of this data is gone.")

    def _unlock(self, holder: HasKeys, code: AccessCode) -> bytes:
        context = _protected_context(holder.manager_id)
        sealed = self._keys.unwrap(holder.data_key_id, context)
        self._guesses.count(holder.data_key_id, code.presenter)
        key = access_codes.unseal(code, sealed, context)
        if key is None:
            raise AccessCodeRefused
        self._guesses.forget(holder.data_key_id, code.presenter)
        return key


def _protected_context(manager_id: str) -> str:
    # Not the version's id: the key is made with the upload, before there is one. The key's own id binds it as well.
    return f"managers/{manager_id}/protected-data-key"
