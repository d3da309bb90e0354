"""Manifests: whole and unchanged, or refused."""

import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import assume, example, given, settings

from services.models import manifests
from services.models.manifests import ChunkRef, Manifest, ManifestFile, decode, encode, manifest_digest
from services.shared.errors import DataLoss
from strongroom.chunking import MAX_CHUNK
from tests.damage import damaged

_KEY = bytes(range(32))
_CHANCE = random.Random(3)


def _chunk(length: int) -> ChunkRef:
    take = _CHANCE.randbytes
    return ChunkRef(take(32), take(16), take(32), length, take(32))


_A, _B, _C = _chunk(100), _chunk(MAX_CHUNK), _chunk(1)
_FILES = (
    ManifestFile("config.json", 1, bytes(32), (_C,)),
    ManifestFile("model/weights.safetensors", 200 + MAX_CHUNK, b"s" * 32, (_A, _B, _A)),
    ManifestFile("model/übung", 1, b"t" * 32, (_C,)),
    ManifestFile("empty", 0, b"u" * 32, ()),
)
_MANIFEST = Manifest("fraud", "scorer", "1.0", "01J0000000000000000000000", _FILES, "domain-1", "data-1")
_ENCODED = encode(_MANIFEST, _KEY)
_CLEAR = len(_ENCODED) - len(b"".join(manifests._body(_FILES, manifests._table(_MANIFEST)))) - 12 - 16


def _refused(data: bytes, key: bytes = _KEY, digest: bytes | None = None) -> None:
    with pytest.raises(DataLoss, check=lambda error: error.error_reason == "MANIFEST_DAMAGED"):
        decode(data, key, digest or manifest_digest(data))


def _with_body(body: bytes, nonce: bytes = bytes(12)) -> bytes:
    """A manifest of somebody who has the data key and writes what they like."""
    clear = _ENCODED[:_CLEAR]
    return clear + nonce + AESGCM(_KEY).encrypt(nonce, body, manifests._associated_data(clear))


def test_manifest_reads_back() -> None:
    assert decode(_ENCODED, _KEY, manifest_digest(_ENCODED)) == _MANIFEST


def test_header_and_references_need_no_key() -> None:
    found = manifests.header(_ENCODED)
    assert (found.manager_id, found.model_name, found.version) == ("fraud", "scorer", "1.0")
    assert (found.version_id, found.domain_key_id, found.data_key_id) == (_MANIFEST.version_id, "domain-1", "data-1")
    listed = manifests.references(_ENCODED)
    assert [(each.blob_id, each.ciphertext_digest) for each in listed] == [
        (chunk.blob_id, chunk.ciphertext_digest) for chunk in (_C, _A, _B)
    ]


def test_what_opens_a_chunk_and_names_a_file_is_not_in_the_clear() -> None:
    for secret in (_A.salt, _A.chunk_id, b"weights", b"s" * 32):
        assert secret not in _ENCODED


@settings(max_examples=300, deadline=None)
@given(data=damaged(_ENCODED))
def test_any_change_is_refused(data: bytes) -> None:
    assume(data != _ENCODED)
    _refused(data, digest=manifest_digest(_ENCODED))
    _refused(data)  # and even if whoever changed it could change the row's digest as well
    try:  # the clear part alone cannot know, but it must not crash either
        manifests.header(data)
        manifests.references(data)
    except DataLoss:
        pass


@settings(max_examples=300, deadline=None)
@given(body=damaged(b"".join(manifests._body(_FILES, manifests._table(_MANIFEST)))))
@example(body=b"")
def test_body_has_one_form(body: bytes) -> None:
    forged = _with_body(body)
    try:
        manifest = decode(forged, _KEY, manifest_digest(forged))
    except DataLoss:
        return
    assert encode(manifest, _KEY, lambda count: bytes(count)) == forged


def test_other_key_other_version_other_digest_are_refused() -> None:
    _refused(_ENCODED, key=bytes(32))
    _refused(_ENCODED, digest=bytes(32))
    _refused(encode(replace(_MANIFEST, version="2.0"), _KEY), digest=manifest_digest(_ENCODED))


def test_reserved_codec_is_refused() -> None:
    body = bytearray(b"".join(manifests._body(_FILES, manifests._table(_MANIFEST))))
    body[68] = 2
    _refused(_with_body(bytes(body)))


@pytest.mark.parametrize("path", ["a", "a/b/c.bin", "...", "a b", "-", "x" * 1024, "ü" * 512, "C:\\x"])
def test_relative_path_is_valid(path: str) -> None:
    assert manifests.valid_path(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "x" * 1025, "ü" * 513, "a\0", "\ud800"]
)
def test_other_path_is_not(path: str) -> None:
    assert not manifests.valid_path(path)
    with pytest.raises(ValueError, match="path"):
        encode(replace(_MANIFEST, files=(replace(_FILES[0], path=path),)), _KEY)


_file = _FILES[0]
_IMPOSSIBLE = {
    "no file": (),
    "one path twice": (_file, _file),
    "file and folder": (_file, replace(_file, path="config.json/deep/er")),
    "wrong size": (replace(_file, size=2),),
    "empty chunk": (ManifestFile("a", 0, bytes(32), (replace(_A, length=0),)),),
    "huge chunk": (ManifestFile("a", MAX_CHUNK + 1, bytes(32), (replace(_A, length=MAX_CHUNK + 1),)),),
    "one blob for two chunks": (ManifestFile("a", 200, bytes(32), (_A, replace(_chunk(100), blob_id=_A.blob_id))),),
}


@pytest.mark.parametrize("files", _IMPOSSIBLE.values(), ids=_IMPOSSIBLE.keys())
def test_impossible_manifest_is_neither_written_nor_read(
    files: tuple[ManifestFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = replace(_MANIFEST, files=files)
    with pytest.raises(ValueError, match=" "):
        encode(manifest, _KEY)
    checks = manifests._table
    # As somebody would who has the keys and leaves the checks out.
    monkeypatch.setattr(manifests, "_table", lambda each: {chunk: n for n, chunk in enumerate(_distinct(each))})
    forged = encode(manifest, _KEY)
    monkeypatch.setattr(manifests, "_table", checks)
    _refused(forged)


def test_short_digest_and_salt_are_not_written() -> None:
    short = replace(_A, salt=b"x")
    for file in (replace(_file, sha256=b""), ManifestFile("a", 100, bytes(32), (short,))):
        with pytest.raises(ValueError, match=r"impossible|sha256"):
            encode(replace(_MANIFEST, files=(file,)), _KEY)


def _distinct(manifest: Manifest) -> dict[ChunkRef, None]:
    return dict.fromkeys(chunk for file in manifest.files for chunk in file.chunks)


def test_long_name_and_too_many_chunks_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="255"):
        encode(replace(_MANIFEST, model_name="x" * 256), _KEY)
    monkeypatch.setattr(manifests, "MAX_MANIFEST", 100)
    with pytest.raises(ValueError, match="too many"):
        encode(_MANIFEST, _KEY)
    _refused(_ENCODED)
