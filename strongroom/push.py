"""Pushing: cut, ask what the server has, send the rest, commit.

    cut and digest ──► HasChunks, in batches ──► WriteChunks, in frames
          └──────────► SHA-256 of each file

Each arrow is a bounded queue between threads, so a file of any size passes through some 100 MiB of memory.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from strongroom.chunking import chunk_file, digest
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.errors import AlreadyExists, FailedPrecondition, LocalFileError, NotFound, StrongroomError
from strongroom.models.v1 import models_pb2, weights_pb2, weights_pb2_grpc
from strongroom.persevere import persevere
from strongroom.retries import Repeat
from strongroom.sender import Sender
from strongroom.stage import Ahead, Stage
from strongroom.tree import LocalFile, walk

# Chunks are asked for together until they have this many bytes or are this many.
_BATCH_BYTES = 32 << 20
_BATCH_CHUNKS = 4096
# How often it begins again because chunks or the upload are gone: collection may take them once, not again and again.
_ROUNDS = 3


@dataclass
class PushProgress:
    """How far a push is, in bytes. `done` counts what was sent or is there already; `sent` what was sent."""

    total: int = 0
    done: int = 0
    sent: int = 0


@dataclass(frozen=True)
class PushResult:
    """The committed version, and how much of it had to be sent."""

    version: models_pb2.Version
    bytes_sent: int


@dataclass
class _Content:
    """What is known of a file once it was cut: its chunks, and its SHA-256 as it grows."""

    chunk_digests: bytearray = field(default_factory=bytearray)
    chunk_lengths: list[int] = field(default_factory=list)
    sha256: Any = field(default_factory=hashlib.sha256)


@dataclass(frozen=True)
class _Chunk:
    data: memoryview
    digest: bytes


class Push:
    """One push of one version. `run` may be called once."""

    def __init__(
        self,
        connection: Connection,
        manager: str,
        model: str,
        version: str,
        report: Callable[[PushProgress], None],
        *,
        compression_level: int = 0,
    ) -> None:
        self._connection = connection
        self._weights = weights_pb2_grpc.WeightsServiceStub(connection.channel)
        self._manager = manager
        self._model = model
        self._version = version
        self._compression_level = compression_level
        self._report = report
        self._progress = PushProgress()
        self._reached = 0

    def run(self, source: Path) -> PushResult:
        """Pushes a file or folder. Raises StrongroomError."""
        files = self._walk(source)
        # Not repeated for long: if nobody answers the first call, the address is wrong rather than the server away.
        upload = self._open()
        for left in reversed(range(_ROUNDS)):
            try:
                contents = persevere(partial(self._send, upload, files), self._how_far)
                version = persevere(partial(self._commit, upload, files, contents), self._how_far)
                break
            except (FailedPrecondition, NotFound) as error:
                if error.reason not in ("CHUNKS_MISSING", "UPLOAD_NOT_FOUND") or not left:
                    raise
                if error.reason == "UPLOAD_NOT_FOUND":
                    # It expired, or another push made it a version: then this says so.
                    upload = self._open()
        _refuse_another(version, files, contents)
        return PushResult(version, self._progress.sent)

    def plan(self, source: Path) -> PushProgress:
        """What `run` would have to send: `total - done`. Sends no weights."""
        files = self._walk(source)
        upload = self._open()
        try:
            for batch in _batches(_cut(files, [_Content() for _ in files], lambda _item: None)):
                self._missing(upload, batch)
        finally:
            request = weights_pb2.AbortUploadRequest(manager_id=self._manager, model_name=self._model, upload_id=upload)
            self._connection.call(self._weights.AbortUpload, request, repeat=Repeat.SAFE)
        return self._progress

    def _walk(self, source: Path) -> list[LocalFile]:
        files = walk(source)
        self._progress.total = sum(file.size for file in files)
        return files

    def _open(self) -> str:
        request = weights_pb2.CreateUploadRequest(
            manager_id=self._manager,
            model_name=self._model,
            version=self._version,
            compression_level=self._compression_level,
        )
        return self._connection.call(self._weights.CreateUpload, request, repeat=Repeat.SAFE).upload_id

    def _send(self, upload: str, files: list[LocalFile]) -> list[_Content]:
        """Cuts the files and sends what the server lacks. Returns once all of it is durable."""
        self._progress.done = 0
        contents = [_Content() for _ in files]
        header = weights_pb2.WriteChunksHeader(manager_id=self._manager, model_name=self._model, upload_id=upload)
        with (
            Sender(self._connection, header) as sender,
            Stage(_hash, waiting=16, name="sha256") as hashing,
            Ahead(_batches(_cut(files, contents, hashing.put)), waiting=1, name="cut") as batches,
        ):
            for batch in batches:
                for chunk in self._missing(upload, batch):
                    sender.put(chunk)
                    self._advance(len(chunk), sent=len(chunk))
            sender.finish()
        for file in files:
            file.refuse_change()
        return contents

    def _missing(self, upload: str, batch: list[_Chunk]) -> list[memoryview]:
        """The chunks of the batch that the server has not got, each once."""
        request = weights_pb2.HasChunksRequest(
            manager_id=self._manager,
            model_name=self._model,
            upload_id=upload,
            digests=b"".join(chunk.digest for chunk in batch),
        )
        present = self._connection.call(self._weights.HasChunks, request, repeat=Repeat.SAFE).present
        if len(present) != len(batch):
            raise StrongroomError("The server's answer does not fit the question.", reason="ANSWER_MALFORMED")
        missing: dict[bytes, memoryview] = {}
        for chunk, there in zip(batch, present, strict=True):
            if there or chunk.digest in missing:
                self._advance(len(chunk.data))
            else:
                missing[chunk.digest] = chunk.data
        return list(missing.values())

    def _commit(self, upload: str, files: list[LocalFile], contents: list[_Content]) -> models_pb2.Version:
        uploaded = [
            weights_pb2.UploadedFile(
                path=file.name,
                sha256=content.sha256.digest(),
                chunk_digests=bytes(content.chunk_digests),
                chunk_lengths=content.chunk_lengths,
            )
            for file, content in zip(files, contents, strict=True)
        ]
        request = weights_pb2.CommitUploadRequest(
            manager_id=self._manager, model_name=self._model, upload_id=upload, files=uploaded
        )
        return self._connection.call(self._weights.CommitUpload, request, repeat=Repeat.SAFE, deadline=LONG_DEADLINE)

    def _how_far(self) -> int:
        return self._reached

    def _advance(self, done: int, *, sent: int = 0) -> None:
        self._progress.done += done
        self._progress.sent += sent
        self._reached = max(self._reached, self._progress.done)
        self._report(self._progress)


def _refuse_another(version: models_pb2.Version, files: list[LocalFile], contents: list[_Content]) -> None:
    """Raises AlreadyExists if the version is not what was pushed.

    Two pushes of one version by one caller share an upload, and a commit of what is committed answers as the first.
    """
    pushed = {file.name: content.sha256.hexdigest() for file, content in zip(files, contents, strict=True)}
    if pushed != {file.path: file.sha256 for file in version.files}:
        message = (
            f"Another push made {version.version} of other content at the same time. Push this as another version."
        )
        raise AlreadyExists(message, code="ALREADY_EXISTS", reason="VERSION_EXISTS")


_Hashing = tuple[_Content, memoryview]


def _hash(item: _Hashing) -> None:
    content, data = item
    content.sha256.update(data)


def _cut(files: list[LocalFile], contents: list[_Content], hashing: Callable[[_Hashing], None]) -> Iterator[_Chunk]:
    """The chunks of all files, one after another. Raises LocalFileError."""
    for file, content in zip(files, contents, strict=True):
        try:
            for data in chunk_file(file.path, file.name):
                hashing((content, data))
                chunk = _Chunk(data, digest(data))
                content.chunk_digests += chunk.digest
                content.chunk_lengths.append(len(data))
                yield chunk
        except OSError as error:
            message = f"{file.path} can't be read: {error.strerror}."
            raise LocalFileError(message, reason="SOURCE_UNREADABLE") from None


def _batches(chunks: Iterable[_Chunk]) -> Iterator[list[_Chunk]]:
    batch: list[_Chunk] = []
    size = 0
    for chunk in chunks:
        batch.append(chunk)
        size += len(chunk.data)
        if size >= _BATCH_BYTES or len(batch) >= _BATCH_CHUNKS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
