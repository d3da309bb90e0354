"""Manifests: what a version is made of (docs/format.md).

Clear: whose it is, the ids of its keys, the blobs it needs. Encrypted under the version's data key: files, their
digests, and what opens each chunk. The digest of the whole stands in the version's row, so a manifest that is changed,
cut or exchanged is found out before anything in it is believed.
"""

import hmac
import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.models import codecs
from services.shared.errors import DataLoss
from strongroom.chunking import MAX_CHUNK

FORMAT_VERSION = 1
MAX_MANIFEST = 256 * 1024 * 1024  # some two million chunks: two terabytes
MAX_FILES = 100_000
MAX_PATH = 1024
MAX_NAME = 255

_MAGIC = b"STRGMANI"
_HEAD = struct.Struct("<8sI")  # magic, format version; then six names, the reference list
_COUNT = struct.Struct("<I")
_SHORT = struct.Struct("<H")
_REFERENCE = struct.Struct("<16s32s")  # blob id, BLAKE3 of ciphertext and tag
_OPENING = struct.Struct("<32s32sIB")  # chunk id, salt, length of the plaintext, codec
_FILE = struct.Struct("<Q32sI")  # size, sha256, count of chunks
_NONCE_BYTES = 12  # random: one data key encrypts few manifests, far below 2**32 (NIST SP 800-38D, section 8.3)
_KEY = re.compile(r"manifests/[0-9a-hjkmnp-tv-z]{26}")
_ASSOCIATED_DATA = b"strongroom manifest v1"


@dataclass(frozen=True)
class ChunkRef:
    """A chunk of a file; `length` is that of the plaintext. Bytes: ids, salt and digest 32 each, but `blob_id` 16."""

    chunk_id: bytes
    blob_id: bytes
    salt: bytes
    length: int
    ciphertext_digest: bytes
    codec: int = codecs.PLAIN


@dataclass(frozen=True)
class ManifestFile:
    """A file: `size` in bytes, `sha256` 32 bytes, its chunks in order (none if empty)."""

    path: str
    size: int
    sha256: bytes
    chunks: tuple[ChunkRef, ...]


@dataclass(frozen=True)
class Manifest:
    """A version: whose it is, its files with distinct paths, and the ids of the keys that open it."""

    manager_id: str
    model_name: str
    version: str
    version_id: str
    files: tuple[ManifestFile, ...]
    domain_key_id: str
    data_key_id: str


@dataclass(frozen=True)
class ManifestHeader:
    """What anybody can read who has the manifest."""

    manager_id: str
    model_name: str
    version: str
    version_id: str
    domain_key_id: str
    data_key_id: str


@dataclass(frozen=True)
class Reference:
    """A blob that the version needs: an id of 16 bytes, the BLAKE3 of its ciphertext and tag."""

    blob_id: bytes
    ciphertext_digest: bytes


def manifest_key(version_id: str) -> str:
    """The store's key of a version's manifest."""
    return f"manifests/{version_id.lower()}"


def is_manifest_key(key: str) -> bool:
    """Whether an object of this key can be a manifest of ours: versions' ids are ULIDs."""
    return _KEY.fullmatch(key) is not None


def valid_path(path: str) -> bool:
    """Whether a file of a version may have this path.

    Relative; parts between `/`, none of them empty, `.` or `..`; no NUL; at most 1024 bytes of UTF-8.
    """
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return False
    return length <= MAX_PATH and "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def encode(manifest: Manifest, data_key: bytes, random: Callable[[int], bytes] = os.urandom) -> bytes:
    """The manifest's bytes. ValueError if `decode` would refuse them; `data_key` has 32 bytes."""
    table = _table(manifest)
    names = [
        manifest.manager_id,
        manifest.model_name,
        manifest.version,
        manifest.version_id,
        manifest.domain_key_id,
        manifest.data_key_id,
    ]
    if any(len(name.encode()) > MAX_NAME for name in names):
        raise ValueError("a name or id in a manifest has at most 255 bytes")
    references = [_REFERENCE.pack(chunk.blob_id, chunk.ciphertext_digest) for chunk in table]
    clear = b"".join([_HEAD.pack(_MAGIC, FORMAT_VERSION), *map(_text, names), _COUNT.pack(len(table)), *references])
    body = b"".join(_body(manifest.files, table))
    nonce = random(_NONCE_BYTES)
    data = clear + nonce + AESGCM(data_key).encrypt(nonce, body, _associated_data(clear))
    if len(data) > MAX_MANIFEST:
        raise ValueError("a version has too many chunks for one manifest")
    return data


def decode(data: bytes, data_key: bytes, expected_digest: bytes) -> Manifest:
    """The manifest, wholly checked. DataLoss with reason MANIFEST_DAMAGED, and nothing of it, if anything is amiss."""
    if len(data) > MAX_MANIFEST or not hmac.compare_digest(manifest_digest(data), expected_digest):
        raise _damaged()
    found, listed, end = _clear(data)
    nonce, sealed = data[end : end + _NONCE_BYTES], data[end + _NONCE_BYTES :]
    try:
        body = AESGCM(data_key).decrypt(nonce, sealed, _associated_data(data[:end]))
    except (InvalidTag, ValueError):
        raise _damaged() from None
    files = _read_body(_Reader(body), listed)
    manifest = Manifest(
        found.manager_id,
        found.model_name,
        found.version,
        found.version_id,
        files,
        found.domain_key_id,
        found.data_key_id,
    )
    try:
        _table(manifest)
    except ValueError:
        raise _damaged() from None
    return manifest


def manifest_digest(data: bytes) -> bytes:
    """BLAKE3 of all bytes, 32 bytes: what the version's row keeps and `decode` expects."""
    return blake3(data).digest()


def header(data: bytes) -> ManifestHeader:
    """The clear header. Compare `manifest_digest` before believing it. DataLoss with reason MANIFEST_DAMAGED."""
    return _clear(data)[0]


def references(data: bytes) -> tuple[Reference, ...]:
    """Every blob the version needs, once. Compare `manifest_digest` before believing it. DataLoss as `header`."""
    return _clear(data)[1]


def _table(manifest: Manifest) -> dict[ChunkRef, int]:
    """The distinct chunks in order of first use, numbered. ValueError where a rule of the format is broken."""
    paths = {file.path for file in manifest.files}
    if not 0 < len(paths) == len(manifest.files) <= MAX_FILES or not all(map(valid_path, paths)):
        raise ValueError("a version has 1 to 100,000 files with distinct, relative paths")
    if any(parent in paths for path in paths for parent in _parents(path)):
        raise ValueError("a path is both a file and a folder")
    table: dict[ChunkRef, int] = {}
    for file in manifest.files:
        if len(file.sha256) != 32:
            raise ValueError("a sha256 has 32 bytes")
        if sum(chunk.length for chunk in file.chunks) != file.size:
            raise ValueError("a file's size is not the sum of its chunks")
        for chunk in file.chunks:
            table.setdefault(chunk, len(table))
    if len({chunk.blob_id for chunk in table}) != len(table):
        raise ValueError("two different chunks claim one blob")
    for chunk in table:
        lengths = [len(chunk.blob_id), len(chunk.chunk_id), len(chunk.salt), len(chunk.ciphertext_digest)]
        if lengths != [16, 32, 32, 32] or not 0 < chunk.length <= MAX_CHUNK:
            raise ValueError("a chunk's id, salt, digest or length has an impossible size")
        if chunk.codec not in codecs.CODECS:
            raise ValueError("a chunk's codec is not known")
    return table


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    return ("/".join(parts[:count]) for count in range(1, len(parts)))


def _body(files: tuple[ManifestFile, ...], table: dict[ChunkRef, int]) -> Iterator[bytes]:
    """What is encrypted: how to open each blob of the reference list, then the files as numbers into it."""
    for chunk in table:
        yield _OPENING.pack(chunk.chunk_id, chunk.salt, chunk.length, chunk.codec)
    yield _COUNT.pack(len(files))
    for file in files:
        yield _text(file.path)
        yield _FILE.pack(file.size, file.sha256, len(file.chunks))
        yield struct.pack(f"<{len(file.chunks)}I", *(table[chunk] for chunk in file.chunks))


def _clear(data: bytes) -> tuple[ManifestHeader, tuple[Reference, ...], int]:
    """Header, references, and where they end."""
    reader = _Reader(data)
    if len(data) > MAX_MANIFEST or reader.take(_HEAD) != (_MAGIC, FORMAT_VERSION):
        raise _damaged()
    found = ManifestHeader(*(reader.text(MAX_NAME) for _ in range(6)))
    listed = tuple(Reference(*row) for row in reader.rows(_REFERENCE, reader.count()))
    if len({reference.blob_id for reference in listed}) != len(listed):
        raise _damaged()
    return found, listed, reader.position


def _read_body(reader: "_Reader", listed: tuple[Reference, ...]) -> tuple[ManifestFile, ...]:
    table = []
    for reference, (chunk_id, salt, length, codec) in zip(listed, reader.rows(_OPENING, len(listed)), strict=True):
        table.append(ChunkRef(chunk_id, reference.blob_id, salt, length, reference.ciphertext_digest, codec))
    used = 0
    files = []
    for _ in range(reader.count()):
        path = reader.text(MAX_PATH)
        size, sha256, count = reader.take(_FILE)
        chunks = []
        for (number,) in reader.rows(_COUNT, count):
            # Numbered in order of first use: a manifest has one form.
            if number > used or number >= len(table):
                raise _damaged()
            used = max(used, number + 1)
            chunks.append(table[number])
        files.append(ManifestFile(path, size, sha256, tuple(chunks)))
    if used != len(table) or not reader.ended():
        raise _damaged()
    return tuple(files)


class _Reader:
    """Takes fields off the front of bytes that somebody else wrote. DataLoss where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self._bytes(layout.size))

    def rows(self, layout: struct.Struct, count: int) -> Iterator[tuple[Any, ...]]:
        return layout.iter_unpack(self._bytes(layout.size * count))

    def text(self, longest: int) -> str:
        (length,) = _SHORT.unpack(self._bytes(_SHORT.size))
        if length > longest:
            raise _damaged()
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError:
            raise _damaged() from None

    def count(self) -> int:
        return int(self.take(_COUNT)[0])

    def ended(self) -> bool:
        return self.position == len(self._data)

    def _bytes(self, length: int) -> bytes:
        piece = self._data[self.position : self.position + length]
        if len(piece) != length:
            raise _damaged()
        self.position += length
        return piece


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _SHORT.pack(len(encoded)) + encoded


def _associated_data(clear: bytes) -> bytes:
    return _ASSOCIATED_DATA + blake3(clear).digest()


def _damaged() -> DataLoss:
    return DataLoss("The manifest is damaged: restore it from a copy.", reason="MANIFEST_DAMAGED")
