"""What a writer writes: where the fuzzer starts from."""

import hashlib
import io
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import save

from services.models import codecs, manifests, packs
from services.models.manifests import ChunkRef, Manifest, ManifestFile
from services.models.packs import PackEntry, PackIndex
from strongroom import bulk
from strongroom.models.v1 import files_pb2, weights_pb2
from tests.fuzz.targets import KEY, NONCE, PACK_ID, SECRET


def seeds() -> dict[str, list[bytes]]:
    """Valid inputs of each target."""
    return {
        "manifest": [_manifest(["a"]), _manifest(["a", "b/c", "b/d"])],
        "raw_manifest": [_manifest(["a"])],
        "pack": [_pack([17]), _pack([17, 18, 4096, 19]), _pack([17, 18, 19], version=1)],
        "frame": [bulk.encode_frame([b"x"]), bulk.encode_frame([bytes(300), b"y" * 5])],
        "body": [_put(data=b"x"), _put(data=bytes(300), content_type="text/plain")],
        "header": [_write_header(), _put(data=b"x", path="a/b")],
        "commit": [_commit(0), _commit(1), _commit(3)],
        "answer": [weights_pb2.ReadFileResponse(data=data).SerializeToString() for data in (b"", b"x", bytes(300))],
        "codec": [_compressed(b"x" * 300), _compressed(bytes(range(256)) * 4, 9), _sized(b"plain", 5)],
        "one_tensor": [_safetensors([5, 7]) + bytes(12)],
        "form": [_form(b"weights"), _form(b"", before=b"preamble\r\n"), _form(bytes(300), others=2)],
        "tensors": [_tensors(np.float32), _tensors(np.float64), _tensors(np.float16)],
        "arrays": [_arrays(np.savez), _arrays(np.savez_compressed)],
        "stores": [_stores(), _stores(f", secret_key: {SECRET}"), f"{{primary: a, {SECRET}: b}}".encode(), *_BOMBS],
        "safetensors": [_safetensors([]), _safetensors([5]), _safetensors([1 << 18, 7, 1 << 18])],
    }


def _manifest(paths: list[str]) -> bytes:
    """Clear part and the plaintext of the body."""

    def chunk(number: int) -> ChunkRef:
        return ChunkRef(bytes([number] * 32), bytes([number] * 16), bytes(32), 1000 + number, bytes(32))

    files = [
        ManifestFile(path, 2000 + number, bytes(32), (chunk(0), chunk(number))) for number, path in enumerate(paths)
    ]
    made = Manifest("default", "scorer", "1", "version", (*files, ManifestFile("empty", 0, bytes(32), ())), "d", "k")
    whole = manifests.encode(made, KEY, lambda _count: NONCE)
    clear_end = manifests._clear(whole)[2]
    return whole[:clear_end] + b"".join(manifests._body(made.files, manifests._table(made)))


def _pack(lengths: list[int], version: int = packs.FORMAT_VERSION) -> bytes:
    """Entries and trailer."""
    entries: list[PackEntry] = []
    end = packs.BLOCK
    for number, length in enumerate(lengths):
        entries.append(PackEntry(bytes([number] * 16), packs.place(end, length, version), length, bytes(32)))
        end = entries[-1].offset + length
    size = packs.aligned(end) + packs.index_size(len(entries))
    table = packs.encode_index(PackIndex(PACK_ID, size, tuple(entries), version))
    trailer = packs._TRAILER.size
    return table[: len(entries) * packs._ENTRY.size] + table[-trailer:]


def _put(data: bytes, content_type: str = "", path: str = "") -> bytes:
    message = files_pb2.PutFileRequest(path=path)
    message.body.data = data
    message.body.content_type = content_type
    return message.SerializeToString()


def _write_header() -> bytes:
    return bulk.encode_header(weights_pb2.WriteChunksHeader(manager_id="default", model_name="m", upload_id="u"))


def _commit(count: int) -> bytes:
    files = [
        weights_pb2.UploadedFile(
            path=str(number),
            sha256=hashlib.sha256(b"").digest(),
            chunk_digests=bytes(32 * number),
            chunk_lengths=range(1, 1 + number),
        )
        for number in range(count)
    ]
    request = weights_pb2.CommitUploadRequest(manager_id="default", model_name="m", upload_id="u", files=files)
    return request.SerializeToString()


# What has broken readers of YAML elsewhere: growth by aliases, by merges, in keys, depth, numbers, dates, tags.
_BOMBS = [
    b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nprimary: *c\n",
    b"a: &a {x: y}\nb: &b {<<: [*a, *a]}\nprimary: {<<: [*b, *b]}\n",
    b"a: &a [x, x]\n? [*a, *a]\n: x\n",
    b"[" * 50,
    b"primary: 2001-99-99",
    b"primary: " + b"9" * 5000,
    b"primary: !!timestamp x",
    b"primary: !!python/object/apply:os.system [id]",
    b'primary: a\nstores: {a: {kind: local, path: "\\0"}}',
]


def _stores(more: str = "") -> bytes:
    return f"""primary: bucket
replicas: [disk]
stores:
  bucket: {{kind: s3, bucket: models, access_key: {{environment: KEY}}{more}}}
  disk: {{kind: local, path: weights}}
cache: {{path: cache, max_size_gb: 0.5}}
""".encode()


def _safetensors(sizes: list[int]) -> bytes:
    tensors, position = {}, 0
    for number, size in enumerate(sizes):
        span = [position, position + size]
        tensors[f"t{number}"] = {"dtype": "U8", "shape": [size], "data_offsets": span}
        position += size
    header = json.dumps({"__metadata__": {"a": "b"}, **tensors}).encode()
    return struct.pack("<Q", len(header)) + header + b"weights"


def _form(content: bytes, *, before: bytes = b"", others: int = 0) -> bytes:
    head = b'Content-Disposition: form-data; name="model_file"; filename="w.bin"\r\nContent-Type: a/b\r\n\r\n'
    parts = [b'Content-Disposition: form-data; name="other"\r\n\r\nx' for _ in range(others)] + [head + content]
    return before + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def _matrix(dtype: Any) -> Any:
    return np.arange(64, dtype=dtype).reshape(4, 16)


def _tensors(dtype: Any) -> bytes:
    return save({"w": _matrix(dtype), "b": np.zeros(3, np.int8)}, {"a": "b"})


def _arrays(write: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    write(file, w=_matrix(np.float32), turned=np.asfortranarray(_matrix(np.float64)))
    return file.getvalue()


def _compressed(plain: bytes, level: int = 1) -> bytes:
    return _sized(bytes(codecs.Compressor(level).shrink(plain)[1]), len(plain))


def _sized(stored: bytes, length: int) -> bytes:
    return struct.pack("<I", length) + stored
