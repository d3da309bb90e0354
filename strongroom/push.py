"""Pushing: cut, ask what the server has, send the rest, commit.

    cut ──► digest ──► HasChunks, in batches ──► WriteChunks, in frames
      └───► SHA-256 of each file

Each arrow is a bounded queue between threads, so a file of any size passes through a few ten MiB of memory.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Full, Queue
from typing import Any

import stamina

from strongroom import bulk
from strongroom.chunking import chunk_file, digest
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.errors import LocalFileError, StrongroomError, Unavailable
from strongroom.models.v1 import models_pb2, weights_pb2, weights_pb2_grpc
from strongroom.stage import Stage
from strongroom.tree import LocalFile, walk

# Bytes a message of the data plane carries: the size at which gRPC moved most.
FRAME_BYTES = 2 << 20
# Chunks are asked for together until they have this many bytes or are this many.
_BATCH_BYTES = 16 << 20
_BATCH_CHUNKS = 4096
# Attempts after a broken stream or a restarting server, and the seconds they may take altogether.
_ATTEMPTS = 8
_PATIENCE = 120.0


@dataclass
class PushProgress:
    """How far a push is, in bytes. `done` counts what is stored, sent now or there before; `sent` what was sent."""

    total: int = 0
    done: int = 0
    sent: int = 0


@dataclass(frozen=True)
class PushResult:
    """The committed version, and how much of it had to be sent."""

    version: models_pb2.Version
    bytes_sent: int


@dataclass
class _Digests:
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
    ) -> None:
        self._connection = connection
        self._weights = weights_pb2_grpc.WeightsServiceStub(connection.channel)
        self._manager = manager
        self._model = model
        self._version = version
        self._report = report
        self._progress = PushProgress()
        self._sent = 0

    def run(self, source: Path) -> PushResult:
        """Pushes a file or folder. Raises StrongroomError."""
        files = walk(source)
        self._progress.total = sum(file.size for file in files)
        retries = stamina.retry_context(on=Unavailable, attempts=_ATTEMPTS, timeout=_PATIENCE, wait_max=10.0)
        for attempt in retries:
            with attempt:
                return self._attempt(files)
        raise AssertionError("stamina raises after the last attempt")

    def plan(self, source: Path) -> PushProgress:
        """What `run` would do, sending nothing: `done` are the bytes that the server has already."""
        files = walk(source)
        self._progress.total = sum(file.size for file in files)
        upload = self._open()
        for batch in _batches(self._chunks(files, [_Digests() for _ in files], None)):
            self._missing(upload, batch)
        request = weights_pb2.AbortUploadRequest(manager_id=self._manager, model_name=self._model, upload_id=upload)
        self._connection.call(self._weights.AbortUpload, request)
        return self._progress

    def _attempt(self, files: list[LocalFile]) -> PushResult:
        self._progress.done = 0
        upload = self._open()
        digests = [_Digests() for _ in files]
        self._send(upload, files, digests)
        changed = [str(file.path) for file in files if file.changed()]
        if changed:
            message = f"{changed[0]} changed while it was pushed. Push again once nobody writes to it."
            raise LocalFileError(message, reason="SOURCE_CHANGED")
        uploaded = [
            weights_pb2.UploadedFile(
                path=file.name,
                sha256=known.sha256.digest(),
                chunk_digests=bytes(known.chunk_digests),
                chunk_lengths=known.chunk_lengths,
            )
            for file, known in zip(files, digests, strict=True)
        ]
        request = weights_pb2.CommitUploadRequest(
            manager_id=self._manager, model_name=self._model, upload_id=upload, files=uploaded
        )
        version = self._connection.call(self._weights.CommitUpload, request, deadline=LONG_DEADLINE)
        return PushResult(version, self._sent)

    def _open(self) -> str:
        request = weights_pb2.CreateUploadRequest(
            manager_id=self._manager, model_name=self._model, version=self._version
        )
        answer = self._connection.call(self._weights.CreateUpload, request)
        # A timestamp the server chose stays ours if we have to begin again.
        self._version = answer.version
        upload: str = answer.upload_id
        return upload

    def _send(self, upload: str, files: list[LocalFile], digests: list[_Digests]) -> None:
        """Cuts the files and sends what the server lacks."""
        header = weights_pb2.WriteChunksHeader(manager_id=self._manager, model_name=self._model, upload_id=upload)
        with ExitStack() as stack:
            sender = stack.enter_context(_Sender(self._connection, header))
            hashing: Stage[tuple[_Digests, memoryview]] = stack.enter_context(Stage(_hash, waiting=16, name="sha256"))
            for batch in _batches(self._chunks(files, digests, hashing)):
                missing = self._missing(upload, batch)
                for chunk in missing:
                    sender.put(chunk)
                self._sent += sum(len(chunk) for chunk in missing)
                self._progress.sent = self._sent
                self._report(self._progress)
            sender.finish()

    def _chunks(
        self, files: list[LocalFile], digests: list[_Digests], hashing: Stage[tuple[_Digests, memoryview]] | None
    ) -> Iterator[_Chunk]:
        for file, known in zip(files, digests, strict=True):
            try:
                for data in chunk_file(file.path, file.name):
                    if hashing is not None:
                        hashing.put((known, data))
                    chunk = _Chunk(data, digest(data))
                    known.chunk_digests += chunk.digest
                    known.chunk_lengths.append(len(data))
                    yield chunk
            except OSError as error:
                raise LocalFileError(
                    f"{file.path} can't be read: {error.strerror}.", reason="SOURCE_UNREADABLE"
                ) from None

    def _missing(self, upload: str, batch: list[_Chunk]) -> list[memoryview]:
        """The chunks of the batch that the server has not got."""
        request = weights_pb2.HasChunksRequest(
            manager_id=self._manager,
            model_name=self._model,
            upload_id=upload,
            digests=b"".join(chunk.digest for chunk in batch),
        )
        present = self._connection.call(self._weights.HasChunks, request).present
        if len(present) != len(batch):
            raise StrongroomError("The server's answer does not fit the question.", reason="ANSWER_MALFORMED")
        self._progress.done += sum(len(chunk.data) for chunk, there in zip(batch, present, strict=True) if there)
        missing: dict[bytes, memoryview] = {}
        for chunk, there in zip(batch, present, strict=True):
            if not there:
                self._progress.done += len(chunk.data)
                missing.setdefault(chunk.digest, chunk.data)
        return list(missing.values())


class _Sender:
    """A WriteChunks stream, opened with the first chunk and fed from a bounded queue of frames."""

    def __init__(self, connection: Connection, header: weights_pb2.WriteChunksHeader) -> None:
        self._connection = connection
        self._header = bulk.encode_header(header)
        self._frames: Queue[bytes | None] = Queue(2)
        self._chunks: list[memoryview] = []
        self._size = 0
        self._call: Any = None

    def put(self, chunk: memoryview) -> None:
        """Sends a chunk, with others in one frame."""
        if self._chunks and self._size + len(chunk) > FRAME_BYTES:
            self._flush()
        self._chunks.append(chunk)
        self._size += len(chunk)

    def finish(self) -> None:
        """Returns once everything that was put is durable on the server."""
        self._flush()
        if self._call is not None:
            self._hand_over(None)
            self._connection.call(lambda *_args, **_kwargs: self._call.result(), None)

    def _flush(self) -> None:
        if not self._chunks:
            return
        if self._call is None:
            method = bulk.write_chunks(self._connection.channel)
            requests = self._requests()
            self._call = method.future(requests, metadata=self._connection.metadata, timeout=LONG_DEADLINE)
        self._hand_over(bulk.encode_frame(self._chunks))
        self._chunks, self._size = [], 0

    def _hand_over(self, frame: bytes | None) -> None:
        while not self._call.done():
            try:
                self._frames.put(frame, timeout=0.2)
            except Full:
                continue
            return
        # The server ended the stream before we did: its error says why.
        self._connection.call(lambda *_args, **_kwargs: self._call.result(), None)

    def _requests(self) -> Iterator[bytes]:
        yield self._header
        while (frame := self._frames.get()) is not None:
            yield frame

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        if self._call is not None and not self._call.done():
            self._call.cancel()
        # Lets the thread that waits for the next frame go.
        with suppress(Full):
            self._frames.put_nowait(None)


def _hash(item: tuple[_Digests, memoryview]) -> None:
    known, data = item
    known.sha256.update(data)


def _batches(chunks: Iterator[_Chunk]) -> Iterator[list[_Chunk]]:
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
