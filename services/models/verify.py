"""Verification: reads every stored byte of a version."""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from blake3 import blake3

from services.models import chunk_index, manifests, packs
from services.models.access_codes import AccessCode
from services.models.chunk_index import ChunkRow
from services.models.chunk_keys import Domain
from services.models.manifest_store import ManifestStore
from services.models.manifests import Manifest, ManifestFile, Reference
from services.models.reads import Reader
from services.models.stores.store import Store
from services.models.version_keys import VersionKeys
from services.models.versions import Version, Versions
from services.shared.database import Database
from services.shared.errors import DataLoss

_MOST_PROBLEMS = 100


@dataclass
class Verification:
    """What was checked and what is wrong, at most 100 lines."""

    version: Version
    files_checked: int = 0
    bytes_checked: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        return not self.problems


class Verifier:
    """Verifies versions, holding one chunk at a time."""

    def __init__(
        self,
        database: Database,
        store: Store,
        keys: VersionKeys,
        versions: Versions,
        manifest_store: ManifestStore,
        reader: Reader,
    ) -> None:
        self._database = database
        self._store = store
        self._keys = keys
        self._versions = versions
        self._manifests = manifest_store
        self._reader = reader

    def verify(
        self,
        manager_id: str,
        model_name: str,
        version: str,
        still_wanted: Callable[[], None] = lambda: None,
        access_code: AccessCode | None = None,
    ) -> Verification:
        """Reads and checks manifest, packs and chunks, and each file's sha256; damage is an answer, not an error.

        `still_wanted` is called at every chunk, and raises if nobody waits for the answer: a version that names one
        chunk a million times takes hours to read.

        Of a protected version whose code is not presented the ciphertext is checked: every byte that is stored, but not
        what it decrypts to, so no file is counted.

        Raises ManagerNotFound, ModelNotFound, VersionNotFound, AccessCodeRefused.
        """
        found = self._versions.find(manager_id, model_name, version)
        result = Verification(found)
        without_keys = found.protected and access_code is None
        try:
            if without_keys:
                problems = self._stored_problems(result, still_wanted)
            else:
                manifest = self._manifests.load(found, access_code, fresh=True)
                problems = self._problems(result, manifest, self._keys.domain(found, access_code), still_wanted)
        except DataLoss as error:
            result.problems.append(error.message)
            return result
        for problem in problems:
            result.problems.append(problem)
            if len(result.problems) >= _MOST_PROBLEMS:
                break
        if not result.is_valid and (gone := self._versions.gone(found)):
            raise gone
        if result.is_valid and not found.sha256_verified and not without_keys:
            self._versions.mark_verified(found)
        return result

    def _stored_problems(self, result: Verification, still_wanted: Callable[[], None]) -> Iterator[str]:
        """What is checked without keys: the manifest's digest, and by its references every blob. Raises DataLoss."""
        version = result.version
        data = self._manifests.read(version)
        if not hmac.compare_digest(manifests.manifest_digest(data), version.manifest_digest):
            raise DataLoss("The manifest is damaged: restore it from a copy.", reason="MANIFEST_DAMAGED")
        references = manifests.references(data)
        with self._database.read() as connection:
            rows = chunk_index.of_version(connection, version.id)
        return self._damaged_blobs(result, references, rows, still_wanted)

    def _damaged_blobs(
        self,
        result: Verification,
        references: Sequence[Reference],
        rows: Mapping[bytes, ChunkRow],
        still_wanted: Callable[[], None],
    ) -> Iterator[str]:
        for reference in references:
            still_wanted()
            row = rows.get(reference.blob_id)
            blob = b"" if row is None else self._blob(row)
            result.bytes_checked += len(blob)
            if not hmac.compare_digest(blake3(blob).digest(), reference.ciphertext_digest):
                yield f"blob {reference.blob_id.hex()}: damaged or missing"
        for pack_id in sorted({row.pack_id for row in rows.values()}):
            yield from self._check_pack(pack_id, set(rows))

    def _blob(self, row: ChunkRow) -> bytes:
        """A blob as it is stored; empty if it can't be read."""
        try:
            return bytes(packs.read_blob(self._store, row.pack_id, row.offset, row.stored_length))
        except DataLoss:
            return b""

    def _problems(
        self, result: Verification, manifest: Manifest, domain: Domain, still_wanted: Callable[[], None]
    ) -> Iterator[str]:
        pack_ids: set[bytes] = set()
        for file in manifest.files:
            yield from self._check_file(result, file, domain, pack_ids, still_wanted)
            result.files_checked += 1
        blobs = {chunk.blob_id for file in manifest.files for chunk in file.chunks}
        for pack_id in sorted(pack_ids):
            yield from self._check_pack(pack_id, blobs)

    def _check_file(
        self,
        result: Verification,
        file: ManifestFile,
        domain: Domain,
        pack_ids: set[bytes],
        still_wanted: Callable[[], None],
    ) -> Iterator[str]:
        """Decrypts every chunk. The packs met on the way are added to `pack_ids`."""
        sha256 = hashlib.sha256()
        position = 0
        whole = True
        for chunk, row in self._reader.locate(result.version.manager_id, file.chunks):
            still_wanted()
            if row is not None:
                pack_ids.add(row.pack_id)
            try:
                sha256.update(self._reader.decrypt(domain, chunk, row))
            except DataLoss:
                whole = False
                yield f"{file.path}: {chunk.length} bytes from {position} on are damaged or missing"
            position += chunk.length
            result.bytes_checked += chunk.length
        if whole and sha256.digest() != file.sha256:
            yield f"{file.path}: its sha256 is {sha256.hexdigest()}, not {file.sha256.hex()} as the uploader said"

    def _check_pack(self, pack_id: bytes, blobs: set[bytes]) -> Iterator[str]:
        """What reading chunks passes over: header, index, padding. Damage to other versions' blobs is not ours."""
        try:
            damaged = packs.damaged(self._store, pack_id)
        except DataLoss as error:
            yield f"pack {pack_id.hex()}: {error.message}"
        else:
            for entry in damaged:
                if entry.blob_id in blobs:
                    yield f"pack {pack_id.hex()}: the blob at {entry.offset} is not as its index says"
