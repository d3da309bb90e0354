"""Pulling: each file into a temporary file beside its place, checked as a whole, then renamed.

A pull that was interrupted continues with the temporary file it left. A file that is there already and has the right
SHA-256 is left alone. At no moment does a wrong or half byte stand under the final name.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stamina

from strongroom import bulk
from strongroom.connection import Connection
from strongroom.errors import DataLoss, LocalFileError, OutOfRange, Unavailable
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.stage import Stage
from strongroom.tree import targets

_ATTEMPTS = 8
_PATIENCE = 120.0
_READ_BYTES = 4 << 20


@dataclass
class PullProgress:
    """How far a pull is, in bytes. `done` counts what is in place, `received` what came over the wire."""

    total: int = 0
    done: int = 0
    received: int = 0


@dataclass(frozen=True)
class PullResult:
    """The version, where its files are now, and how much had to be received."""

    version: models_pb2.Version
    paths: list[Path]
    bytes_received: int


class Pull:
    """One pull of one version."""

    def __init__(
        self,
        connection: Connection,
        manager: str,
        model: str,
        version: str,
        report: Callable[[PullProgress], None],
    ) -> None:
        self._connection = connection
        self._manager = manager
        self._model = model
        self._wanted = version
        self._report = report
        self._progress = PullProgress()

    def run(self, destination: str | Path) -> PullResult:
        """Pulls every file of the version. Raises StrongroomError."""
        models = models_pb2_grpc.ModelServiceStub(self._connection.channel)
        request = models_pb2.GetVersionRequest(manager_id=self._manager, model_name=self._model, version=self._wanted)
        version: models_pb2.Version = self._connection.call(models.GetVersion, request)
        paths = targets([file.path for file in version.files], destination)
        self._progress.total = int(version.size_bytes)
        for file in version.files:
            self._pull_file(version.version, file, paths[file.path])
        return PullResult(version, list(paths.values()), self._progress.received)

    def _pull_file(self, version: str, file: models_pb2.File, path: Path) -> None:
        size, sha256 = int(file.size_bytes), file.sha256
        try:
            if path.is_file() and path.stat().st_size == size and _sha256_of(path).hexdigest() == sha256:
                self._progress.done += size
                self._report(self._progress)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            # Named by its content, so that what another version left is never continued.
            temporary = path.with_name(f".{path.name[:100]}.{sha256[:16]}.part")
            digest = self._fill(version, file, temporary)
            if digest != sha256:
                temporary.unlink()
                message = (
                    f"{file.path} came with SHA-256 {digest} instead of {sha256}. Nothing was written; pull again."
                )
                raise DataLoss(message, reason="SHA256_MISMATCH")
            temporary.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise LocalFileError(f"{path} can't be written: {error.strerror}.", reason="TARGET_UNWRITABLE") from None

    def _fill(self, version: str, file: models_pb2.File, temporary: Path) -> str:
        """Completes the temporary file; the SHA-256 of all of it."""
        size = int(file.size_bytes)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o666), "r+b", buffering=0) as target:  # noqa: PTH123 - the flags matter
            digest = _digest_of(target, size)
            offset = target.seek(0, os.SEEK_CUR)
            if offset == size and digest.hexdigest() != file.sha256:
                # Complete and wrong: a crash can leave blocks that never reached the disk.
                digest, offset = hashlib.sha256(), 0
            target.seek(offset)
            target.truncate(offset)
            done_before = self._progress.done
            retries = stamina.retry_context(on=Unavailable, attempts=_ATTEMPTS, timeout=_PATIENCE, wait_max=10.0)
            for attempt in retries:
                with attempt:
                    offset = target.seek(0, os.SEEK_CUR)
                    self._progress.done = done_before + offset
                    self._receive(version, file, offset, target, digest)
            os.fsync(target.fileno())
        return str(digest.hexdigest())

    def _receive(self, version: str, file: models_pb2.File, offset: int, target: Any, digest: Any) -> None:
        size = int(file.size_bytes)
        if offset == size:
            return
        request = weights_pb2.ReadFileRequest(
            manager_id=self._manager, model_name=self._model, version=version, path=file.path, offset=offset
        )
        # What both stages were given is in file and digest alike when the block is left, whatever ended it.
        with (
            Stage[memoryview](lambda data: _write(target, data), waiting=8, name="write") as writing,
            Stage[memoryview](digest.update, waiting=8, name="sha256") as hashing,
        ):
            for data in self._pieces(request, size - offset):
                writing.put(data)
                hashing.put(data)
                self._progress.done += len(data)
                self._progress.received += len(data)
                self._report(self._progress)

    def _pieces(self, request: weights_pb2.ReadFileRequest, length: int) -> Iterator[memoryview]:
        """The bytes of a range, no more and no fewer."""
        method = bulk.read_file(self._connection.channel)
        for message in self._connection.stream(method, request):
            data = memoryview(bulk.decode_data(message))
            length -= len(data)
            if length < 0:
                raise DataLoss("The server sent more than the file holds.", reason="ANSWER_TOO_LONG")
            yield data
        if length:
            raise Unavailable("The stream ended before the file did.", reason="STREAM_CUT")


def _digest_of(target: Any, size: int) -> Any:
    """The SHA-256 of what an earlier pull left, at most `size` bytes; the position ends behind them."""
    digest = hashlib.sha256()
    left = size
    while left and (data := target.read(min(_READ_BYTES, left))):
        digest.update(data)
        left -= len(data)
    return digest


def _sha256_of(path: Path) -> Any:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def _write(target: Any, data: memoryview) -> None:
    while data:
        data = data[target.write(data) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(connection: Connection, request: weights_pb2.ReadFileRequest) -> bytes:
    """A range of a file, held in memory: for tensors, not for whole models. Raises OutOfRange, NotFound, DataLoss."""
    pieces = connection.stream(bulk.read_file(connection.channel), request)
    data = b"".join(bulk.decode_data(message) for message in pieces)
    if request.HasField("length") and len(data) > request.length:
        raise OutOfRange("The server sent more than was asked for.", reason="ANSWER_TOO_LONG")
    return data
