"""The readers of hostile bytes, each with what must hold of whatever they are given.

A target takes any bytes and raises if the reader did what it must not: raised an error other than its own, accepted
what a writer would not have written, or understood something else than protobuf does. Digests and tags would keep the
fuzzer out: where a format has them, a target computes them over what it was given.
"""

import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import safetensors as safetensors_library
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from services.models import bulk_frames, codecs, manifests, multipart, packs, quantize, tensor_files
from services.models import tensors as tensor_header
from services.models.bulk_frames import FrameInvalid
from services.models.chunk_keys import Domain
from services.models.multipart import FormInvalid
from services.models.quantize import NotQuantizableError
from services.models.stores import configuration
from services.models.stores.store import ObjectNotFound
from services.models.tensors import NotSafetensors, TensorNotFound
from services.shared.configuration import ConfigurationError
from services.shared.errors import DataLoss
from strongroom import bulk
from strongroom.chunking import MAX_CHUNK, Chunker
from strongroom.models.v1 import files_pb2, weights_pb2

KEY = bytes(32)
NONCE = bytes(12)
DOMAIN = Domain(bytes(32), "domain-key")
PACK_ID = bytes(range(16))


def manifest(data: bytes) -> None:
    """Header and references as given; the rest is the plaintext of the body, and becomes authentic."""
    try:
        clear_end = manifests._clear(data)[2]
    except DataLoss:
        return
    clear, body = data[:clear_end], data[clear_end:]
    sealed = AESGCM(KEY).encrypt(NONCE, body, manifests._associated_data(clear))
    whole = clear + NONCE + sealed
    assert manifests.header(whole) == manifests.header(data)
    try:
        found = manifests.decode(whole, KEY, manifests.manifest_digest(whole))
    except DataLoss:
        return
    assert manifests.encode(found, KEY, lambda _count: NONCE) == whole, "a manifest has one form"
    assert all(manifests.valid_path(file.path) for file in found.files)
    assert all(sum(chunk.length for chunk in file.chunks) == file.size for file in found.files)


def raw_manifest(data: bytes) -> None:
    """Bytes as they are in a store that somebody else can write."""
    for read in (manifests.header, manifests.references):
        with suppress(DataLoss):
            read(data)
    try:
        manifests.decode(data, KEY, manifests.manifest_digest(data))
    except DataLoss:
        return
    raise AssertionError("a manifest that nobody encrypted is accepted")


class _OneObject:
    """A store of one object: as much as the reader of packs needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def size(self, key: str) -> int:
        if key != packs.pack_key(PACK_ID):
            raise ObjectNotFound("no such object")
        return len(self._data)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        end = self.size(key) if length is None else offset + length
        return self._data[offset:end]


def pack(data: bytes) -> None:
    """Entries and a trailer, whose digest is put right, behind a sound header and blobs of zeros."""
    trailer = packs._TRAILER.size
    store: Any = _OneObject(data)
    if len(data) >= trailer:
        entries, end = data[:-trailer], data[-trailer:]
        _, offset, size, count, version, magic = packs._TRAILER.unpack(end)
        if packs.BLOCK <= offset <= 1 << 20:
            rows = entries[: count * packs._ENTRY.size]
            fields = (offset, size, count, version, magic)
            digest = blake3(PACK_ID + rows + packs._TRAILER.pack(bytes(32), *fields)).digest()
            table = entries.ljust(packs.index_size(count) - trailer if count < 1 << 12 else 0, b"\0")
            blobs = packs.encode_header(PACK_ID, version).ljust(offset, b"\0")
            store = _OneObject(blobs + table + packs._TRAILER.pack(digest, *fields))
    try:
        index = packs.read_index(store, PACK_ID)
    except DataLoss:
        return
    assert packs.encode_index(index) == store.read(
        packs.pack_key(PACK_ID), index.size - packs.index_size(len(index.entries))
    )
    for before, after in pairwise(index.entries):
        end = before.offset + before.stored_length
        assert after.offset == packs.place(end, after.stored_length, index.version)
    for entry in index.entries:
        try:
            stored = packs.read_blob(store, PACK_ID, entry.offset, entry.stored_length)
        except DataLoss:
            continue
        _refuses(lambda stored=stored, entry=entry: packs.decrypt(DOMAIN, bytes(32), bytes(32), entry.blob_id, stored))


def _refuses(act: Callable[[], object]) -> None:
    try:
        act()
    except DataLoss:
        return
    raise AssertionError("a blob that nobody encrypted is opened")


def frame(data: bytes) -> None:
    """A message of WriteChunks: sliced by hand as protobuf parses it, or refused."""
    try:
        found = bulk_frames.parse_frame(data)
    except FrameInvalid:
        return
    message = weights_pb2.WriteChunksRequest.FromString(data)
    assert message.WhichOneof("message") == "frame"
    assert list(found.lengths) == list(message.frame.lengths)
    assert bytes(found.data) == message.frame.data
    assert all(0 < len(chunk) <= MAX_CHUNK for chunk in found.chunks())
    assert b"".join(found.chunks()) == message.frame.data


def body(data: bytes) -> None:
    """A later message of PutFile: sliced by hand as protobuf parses it, or refused."""
    try:
        found = bulk_frames.parse_body(data)
    except FrameInvalid:
        return
    message = files_pb2.PutFileRequest.FromString(data)
    assert bytes(found) == message.body.data
    assert {field.name for field, _ in message.ListFields()} <= {"body"}


def header(data: bytes) -> None:
    """The first messages of both streams."""
    for parse in (bulk_frames.parse_header, bulk_frames.parse_put):
        with suppress(FrameInvalid):
            parse(data)


def commit(data: bytes) -> None:
    """A CommitUploadRequest: what is cut off is only files beyond the limit, and what protobuf refuses is refused."""
    try:
        found = bulk_frames.parse_commit(data)
    except DecodeError:
        return
    whole = weights_pb2.CommitUploadRequest.FromString(data)
    assert found == whole or len(whole.files) > bulk_frames.MAX_FILES


def answer(data: bytes) -> None:
    """A ReadFileResponse, as the client takes it from a server that it does not trust."""
    try:
        found = bulk.decode_data(data)
    except DecodeError:
        return
    assert bytes(found) == weights_pb2.ReadFileResponse.FromString(data).data


def safetensors(data: bytes) -> None:
    """Whatever the header says, the chunks are the file, and the same ones however it comes."""
    cuts = _cut(data, len(data) or 1)
    assert b"".join(cuts) == data
    assert all(0 < len(chunk) <= MAX_CHUNK for chunk in cuts)
    assert _cut(data, 1 + len(data) // 3) == cuts
    # Behind the header stand as many zeros as a large tensor needs.
    padded = data + bytes(1 << 19)
    assert b"".join(_cut(padded, len(padded))) == padded


def _cut(data: bytes, step: int) -> list[bytes]:
    chunker = Chunker("model.safetensors")
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    chunks = [bytes(chunk) for piece in pieces for chunk in chunker.feed(piece)]
    return [*chunks, *map(bytes, chunker.finish())]


def codec(data: bytes) -> None:
    """A stored chunk that claims to be so long and so compressed: it is, or it is damaged."""
    if len(data) < 4:
        return
    (length,) = struct.unpack("<I", data[:4])
    stored = data[4:]
    for number in (codecs.PLAIN, codecs.ZSTD, 2):
        try:
            plain = codecs.expand(number, stored, length)
        except DataLoss:
            continue
        assert len(plain) == length
        assert number == codecs.PLAIN or len(stored) < length, "a compressed chunk is shorter"


def one_tensor(data: bytes) -> None:
    """A tensor of a file, by name: within the file, or not at all."""
    for name in ("t0", "t1", "__metadata__", ""):
        try:
            found = tensor_header.find(name, len(data), lambda begin, end: data[begin:end])
        except (NotSafetensors, TensorNotFound):
            continue
        assert 8 <= found.begin <= found.end <= len(data)


_FORM = "multipart/form-data; boundary=b"


def form(data: bytes) -> None:
    """A form with a file: the same file however it comes, and no boundary within it.

    What stands before the first boundary the library takes or refuses, as it is cut.
    """
    whole = _form_file([data])
    for length in (1, 1 + len(data) // 3):
        in_pieces = _form_file([data[at : at + length] for at in range(0, len(data), length)])
        assert in_pieces == whole or (None in (whole, in_pieces) and not data.startswith(b"--b"))
    if whole is not None:
        name, content = whole
        assert name
        assert b"\r\n--b\r\n" not in content
        assert b"\r\n--b--" not in content
        assert content in data


def _form_file(pieces: list[bytes]) -> tuple[str, bytes] | None:
    try:
        file = multipart.form_file(_FORM, iter(pieces), "model_file")
        return file.filename, b"".join(map(bytes, file.body))
    except FormInvalid:
        return None


def tensors(data: bytes) -> None:
    """A safetensors file to be copied in int8."""
    _copied("w.safetensors", data)


def arrays(data: bytes) -> None:
    """An npz file to be copied in int8."""
    _copied("w.npz", data)


def _copied(path: str, data: bytes) -> None:
    """There is no copy, or one that the format's own library reads, as long as was said."""
    try:
        found = tensor_files.tensors_of(path, len(data), lambda at, length: iter([data[at : at + length]]))
        plan = quantize.plan(found)
    except NotQuantizableError:
        return
    copy = b"".join(map(bytes, plan.stream()))
    assert len(copy) == plan.size
    names = {name for name, _ in safetensors_library.deserialize(copy)}
    assert {tensor.name for tensor in found} <= names


# A credential that somebody wrote into the file, instead of where it is.
SECRET = "kX9-not-to-be-shown"


def stores(data: bytes) -> None:
    """The file of the stores: read, or refused in one line that repeats no secret."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    try:
        found = configuration.parse(text)
    except ConfigurationError as error:
        told = str(error)
        assert told.isprintable()
        assert len(told) < 2000
        assert SECRET not in told
        return
    assert found.primary in found.stores
    assert len(found.stores) <= 16


_ALL = [manifest, raw_manifest, pack, frame, body, header, commit, answer, safetensors, form, tensors, arrays]
_ALL += [codec, one_tensor, stores]
TARGETS: dict[str, Callable[[bytes], None]] = {target.__name__: target for target in _ALL}
