"""Manifests in the store, opened: the one way to learn what a version consists of."""

from services.models import manifests
from services.models.access_codes import AccessCode
from services.models.key_client import KEY_SECONDS
from services.models.manifests import Manifest
from services.models.replication import ReplicatedStore
from services.models.stores.store import ObjectNotFound, Store
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.errors import DataLoss
from services.shared.expiring_cache import ExpiringCache

# Of encoded manifests; decoded they take about four times as much.
_CACHED_BYTES = 16 << 20


class ManifestStore:
    """Reads manifests, and keeps the latest in memory as briefly as the keys that open them."""

    def __init__(self, store: ReplicatedStore, versions: Versions, keys: VersionKeys) -> None:
        self._store = store
        self._versions = versions
        self._keys = keys
        self._cache: ExpiringCache[str, Manifest] = ExpiringCache(_CACHED_BYTES, KEY_SECONDS)

    def load(self, version: Version, access_code: AccessCode | None = None, *, fresh: bool = False) -> Manifest:
        """The version's manifest, wholly checked; with `fresh` from the store in any case.

        Raises DataLoss with reason MANIFEST_DAMAGED or KEY_MISSING; AccessCodeRefused; VersionNotFound if it was
        deleted just now.
        """
        try:
            # First: what is remembered is for those alone who could open it.
            key = self._keys.data_key(version, access_code) if version.protected else b""
            manifest = None if fresh else self._cache.get(version.uid)
            if manifest is not None:
                return manifest
            data = self._sound(version)
            key = key or self._keys.data_key(version, access_code)
            manifest = manifests.decode(data, key, version.manifest_digest)
        except DataLoss:
            # A deletion takes the key and the manifest away: that is no damage.
            if gone := self._versions.gone(version):
                raise gone from None
            raise
        self._cache.put(version.uid, manifest, len(data))
        return manifest

    def forget_expired(self) -> None:
        self._cache.forget_expired()

    def read(self, version: Version) -> bytes:
        """The manifest's bytes as they are stored, unchecked. Raises DataLoss with reason MANIFEST_DAMAGED."""
        return self._read(version, self._store)

    def _sound(self, version: Version) -> bytes:
        """The same, from another copy where the first is not what was stored."""

        def attempt(store: Store) -> bytes:
            data = self._read(version, store)
            if manifests.manifest_digest(data) != version.manifest_digest:
                raise DataLoss("The manifest is damaged: restore it from a copy.", reason="MANIFEST_DAMAGED")
            return data

        return self._store.sound(version.manifest_key, attempt)

    def _read(self, version: Version, store: Store) -> bytes:
        try:
            # A byte more than there may be: who can write to the store must not decide how much memory this takes.
            return store.read(version.manifest_key, 0, manifests.MAX_MANIFEST + 1)
        except ObjectNotFound:
            message = "The manifest is missing: restore it from a copy."
            raise DataLoss(message, reason="MANIFEST_DAMAGED", version=version.name) from None
