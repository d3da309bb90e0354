"""Manifests: what a version is made of (docs/format.md)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkRef:
    """A chunk of a file; `length` is that of the plaintext. Bytes: chunk_id 32, blob_id 16, salt 32, ciphertext_digest 32."""

    chunk_id: bytes
    blob_id: bytes
    salt: bytes
    length: int
    ciphertext_digest: bytes


@dataclass(frozen=True)
class ManifestFile:
    """A file: `size` in bytes, `sha256` 32 bytes, its chunks in order (none if empty)."""

    path: str
    size: int
    sha256: bytes
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True)
class Manifest:
    """A version: who it is, its files with distinct paths, and the ids of the keys that open it."""

    manager_id: str
    model_name: str
    version: str
    version_id: str
    files: tuple[ManifestFile, ...]
    domain_key_id: str
    data_key_id: str


@dataclass(frozen=True)
class ManifestHeader:
    """What anybody who has the manifest can read."""

    manager_id: str
    model_name: str
    version: str
    version_id: str
    domain_key_id: str
    data_key_id: str


@dataclass(frozen=True)
class Reference:
    """A blob that the version needs: id of 16 bytes, BLAKE3 of ciphertext and tag."""

    blob_id: bytes
    ciphertext_digest: bytes


def valid_path(path: str) -> bool:
    """Whether a file in a version may have this path: relative, parts between `/`, none empty, `.` or `..`; at most 1024 bytes."""
    raise NotImplementedError


def encode(manifest: Manifest, data_key: bytes) -> bytes:
    """The manifest's bytes, encrypted. ValueError if the manifest could not be decoded again."""
    raise NotImplementedError


def decode(data: bytes, data_key: bytes, expected_digest: bytes) -> Manifest:
    """The manifest, wholly checked. DataLoss with reason MANIFEST_DAMAGED."""
    raise NotImplementedError


def manifest_digest(data: bytes) -> bytes:
    """BLAKE3 of all bytes: what the version's row keeps and `decode` expects."""
    raise NotImplementedError


def header(data: bytes) -> ManifestHeader:
    """The clear header. Compare `manifest_digest` before believing it. DataLoss with reason MANIFEST_DAMAGED."""
    raise NotImplementedError


def references(data: bytes) -> tuple[Reference, ...]:
    """The clear reference list: every blob once. Compare `manifest_digest` before believing it. DataLoss as `header`."""
    raise NotImplementedError
