"""docs/format.md and the code agree, byte for byte."""

import hmac
import json
import mmap
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.models import codecs, copying, manifests, packs
from services.models.chunk_keys import Domain
from services.models.manifests import ChunkRef, Manifest, ManifestFile
from services.models.pack_writer import SCRATCH_BYTES, PackWriter, SealedPack
from services.models.stores.local import LocalStore
from strongroom.chunking import Chunker, digest

_DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
_PLAIN = b"weights"
_TENSORS = (
    b'{"small":{"dtype":"U8","shape":[1000],"data_offsets":[0,1000]},'
    b'"large":{"dtype":"U8","shape":[3000000],"data_offsets":[1000,3001000]},'
    b'"last":{"dtype":"U8","shape":[262144],"data_offsets":[3001000,3263144]}}'
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    (block,) = re.findall(r"```json\n(.*?)```", _DOCUMENT.read_text(), re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


def test_plain_stream_is_cut_as_documented(document: dict[str, Any]) -> None:
    assert _cuts("weights.bin", _stream(12 << 20)) == document["chunking"]["plain"]


def test_safetensors_stream_is_cut_as_documented(document: dict[str, Any]) -> None:
    data = len(_TENSORS).to_bytes(8, "little") + _TENSORS + _stream(3263144)
    assert _TENSORS.decode() == document["chunking"]["header"]
    assert _cuts("model.safetensors", data) == document["chunking"]["safetensors"]


def test_keys_are_derived_as_documented(document: dict[str, Any]) -> None:
    domain, vector = _domain(), document["keys"]
    assert digest(_PLAIN).hex() == vector["plain_digest"]
    assert domain.chunk_id(digest(_PLAIN)).hex() == vector["chunk_id"]
    assert domain.chunk_key(domain.chunk_id(digest(_PLAIN)), _numbers(0x30, 32)).hex() == vector["chunk_key"]


def test_blob_opens_by_the_rules_of_the_document_alone(document: dict[str, Any]) -> None:
    def hkdf(salt: bytes, info: bytes) -> bytes:  # RFC 5869, one block
        return hmac.digest(hmac.digest(salt, _numbers(0, 32), "sha256"), info + b"\x01", "sha256")

    id_key = hkdf(bytes(32), b"strongroom chunk id v1")
    chunk_id = blake3(blake3(_PLAIN).digest(), key=id_key).digest()
    chunk_key = hkdf(_numbers(0x30, 32), b"strongroom chunk key v1" + chunk_id)
    aad = b"strongroom chunk v1" + b"\x00" + _numbers(0x20, 16)
    assert AESGCM(chunk_key).decrypt(bytes(12), bytes.fromhex(document["pack"]["blob"]), aad) == _PLAIN


def test_compressed_blob_opens_by_the_rules_of_the_document_alone(document: dict[str, Any]) -> None:
    vector, plain = document["zstd"], _PLAIN * 100
    chunk_id = _domain().chunk_id(digest(plain))
    assert chunk_id.hex() == vector["chunk_id"]
    aad = b"strongroom chunk v1" + b"\x01" + _numbers(0x20, 16)
    frame = AESGCM(_domain().chunk_key(chunk_id, _numbers(0x30, 32))).decrypt(
        bytes(12), bytes.fromhex(vector["blob"]), aad
    )
    assert frame.hex() == vector["frame"]
    assert zstandard.ZstdDecompressor().decompress(frame) == plain
    assert codecs.expand(codecs.ZSTD, frame, len(plain)) == plain


def test_pack_is_written_as_documented(tmp_path: Path, document: dict[str, Any]) -> None:
    vector, store = document["pack"], LocalStore(tmp_path)
    sealed = _sealed(store)
    key = packs.pack_key(sealed.pack_id)
    data = store.read(key)
    assert key == vector["key"]
    assert len(data) == sealed.size == vector["size"]
    assert data[:28].hex() == vector["header"]
    assert data[4096:4119].hex() == vector["blob"]
    assert data[8192:8256].hex() == vector["entry"]
    assert data[-64:].hex() == vector["trailer"]
    assert not any(data[28:4096] + data[4119:8192] + data[8256:-64])


def test_pack_of_version_1_is_read_as_documented(tmp_path: Path, document: dict[str, Any]) -> None:
    """Every blob of it begins a block, and one that does not is refused."""
    vector = document["pack"] | document["pack_version_1"]
    parts = [(0, "header"), (4096, "blob"), (8192, "entry"), (vector["size"] - 64, "trailer")]
    data = bytearray(vector["size"])
    for at, name in parts:
        data[at : at + len(vector[name]) // 2] = bytes.fromhex(vector[name])
    store = LocalStore(tmp_path)
    store.put(vector["key"], data)
    pack_id = _numbers(0x10, 16)
    index = packs.read_index(store, pack_id)
    assert packs.damaged(store, pack_id) == []
    stored = packs.read_blob(store, pack_id, 4096, len(_PLAIN) + 16)
    chunk_id = _domain().chunk_id(digest(_PLAIN))
    assert packs.decrypt(_domain(), chunk_id, _numbers(0x30, 32), index.entries[0].blob_id, stored) == _PLAIN
    copy = LocalStore(tmp_path / "copy")
    copying.copy_pack(store, copy, pack_id)
    assert copy.read(vector["key"]) == data


def test_blobs_are_placed_as_documented(document: dict[str, Any]) -> None:
    vector = document["places"]
    for version, expected in ((1, vector["offsets_version_1"]), (2, vector["offsets"])):
        end, offsets = 4096, []
        for length in vector["lengths"]:
            offsets.append(packs.place(end, length, version))
            end = offsets[-1] + length
        assert offsets == expected


def test_manifest_is_written_as_documented(tmp_path: Path, document: dict[str, Any]) -> None:
    vector = document["manifest"]
    data = manifests.encode(_manifest(_sealed(LocalStore(tmp_path))), _numbers(0x60, 32), _counter(0x80))
    assert data.hex() == vector["bytes"]
    assert manifests.manifest_digest(data).hex() == vector["digest"]


def _stream(length: int) -> bytes:
    return blake3(b"strongroom").digest(length=length)


def _numbers(first: int, count: int) -> bytes:
    return bytes(range(first, first + count))


def _counter(first: int) -> Callable[[int], bytes]:
    """Instead of randomness: bytes that count up from `first`."""
    state = first

    def take(count: int) -> bytes:
        nonlocal state
        state += count
        return _numbers(state - count, count)

    return take


def _cuts(name: str, data: bytes) -> list[int]:
    chunker = Chunker(name)
    return list(accumulate([*map(len, chunker.feed(data)), *map(len, chunker.finish())]))


def _domain() -> Domain:
    return Domain(_numbers(0, 32), "domain-key")


def _sealed(store: LocalStore) -> SealedPack:
    scratch = memoryview(mmap.mmap(-1, SCRATCH_BYTES))
    writer = PackWriter(store, _domain(), _counter(0x10))  # pack id 10…1f, blob id 20…2f, salt 30…4f
    writer.append([(_domain().chunk_id(digest(_PLAIN)), _PLAIN)], scratch)
    return writer.seal(scratch)


def _manifest(sealed: SealedPack) -> Manifest:
    (chunk,) = sealed.chunks
    reference = ChunkRef(chunk.chunk_id, chunk.blob_id, chunk.salt, chunk.plain_length, chunk.ciphertext_digest)
    files = (
        ManifestFile("model/weights.bin", 14, bytes(32), (reference, reference)),
        ManifestFile("empty", 0, bytes(32), ()),
    )
    return Manifest("fraud", "scorer", "1", "version-id", files, "domain-key", "data-key")
