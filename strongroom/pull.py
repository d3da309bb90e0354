"""Pulling: each file into a temporary file beside its place, checked as a whole, then renamed.

    ReadFile ──► temporary file ──► disk, as it comes
        └──────► SHA-256                                 several files at a time

A pull that was interrupted continues with the temporary file it left. A file that is there already and has the right
SHA-256 is left alone. At no moment does a wrong or half byte stand under the final name.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from strongroom import bulk, partial_file
from strongroom.connection import LONG_DEADLINE, Connection
from strongroom.errors import DataLoss, LocalFileError, PermissionDenied, Unavailable
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.partial_file import PartialFile
from strongroom.persevere import persevere
from strongroom.retries import Repeat
from strongroom.stage import Stage
from strongroom.tensors import Tensor
from strongroom.tree import targets

# Files at a time: enough that small ones do not wait for round trips and disk one after another.
_WORKERS = 4
# Files up to so many bytes come together in one stream, in groups up to so many bytes and files: a call costs the
# service as much as a megabyte.
_SMALL = 4 << 20
_GROUP = 64 << 20
_GROUP_FILES = 500


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


class _Stopped(Exception):
    """Another file failed, so this one was given up."""


class Pull:
    """One pull of one version. `run` may be called once."""

    def __init__(
        self,
        connection: Connection,
        manager: str,
        model: str,
        version: str,
        report: Callable[[PullProgress], None],
        provider: str = "",
    ) -> None:
        self._connection = connection
        self._manager = manager
        self._model = model
        self._wanted = version
        self._report = report
        self._provider = provider
        self._progress = PullProgress()
        self._counting = threading.Lock()
        self._stopped = threading.Event()
        self._calls: set[grpc.Call] = set()

    def run(self, destination: str | Path) -> PullResult:
        """Pulls every file of the version. Raises StrongroomError."""
        models = models_pb2_grpc.ModelServiceStub(self._connection.channel)
        request = models_pb2.GetVersionRequest(manager_id=self._manager, model_name=self._model, version=self._wanted)
        version = self._connection.call(models.GetVersion, request, repeat=Repeat.SAFE)
        if version.protected and not version.files:
            message = "This version is protected: its access code is needed."
            raise PermissionDenied(message, reason="ACCESS_CODE_REFUSED")
        paths = targets([file.path for file in version.files], destination)
        self._progress.total = int(version.size_bytes)
        with ThreadPoolExecutor(_WORKERS, "pull") as workers:
            running = [
                workers.submit(self._pull_together if len(group) > 1 else self._pull_one, version.version, group, paths)
                for group in _groups(version.files)
            ]
            try:
                wait(running, return_when=FIRST_EXCEPTION)
            finally:
                # After a failure, or Ctrl-C, nobody needs what the others still fetch.
                workers.shutdown(wait=False, cancel_futures=True)
                self._stop()
        failures = [pulled.exception() for pulled in running if not pulled.cancelled()]
        for failure in failures:
            if failure is not None and not isinstance(failure, _Stopped):
                raise failure
        _sync({path.parent for path in paths.values()})
        return PullResult(version, list(paths.values()), self._progress.received)

    def _stop(self) -> None:
        self._stopped.set()
        for call in list(self._calls):
            call.cancel()

    def _pull_one(self, version: str, files: Sequence[models_pb2.File], paths: Mapping[str, Path]) -> None:
        (file,) = files
        path = paths[file.path]
        with _writing(path):
            if self._in_place(file, path):
                return
            _make_folder(path.parent)
            with partial_file.opened(path, file.sha256) as target:
                self._fill(version, file, target)
                target.become(path)

    def _pull_together(self, version: str, files: Sequence[models_pb2.File], paths: Mapping[str, Path]) -> None:
        """Small files in one stream. Interrupted, it goes on with the first that is not in its place."""
        waiting = deque(file for file in files if not self._in_place(file, paths[file.path]))

        def attempt() -> None:
            if not waiting:
                return
            first, *more = [file.path for file in waiting]
            request = weights_pb2.ReadFileRequest(
                manager_id=self._manager,
                model_name=self._model,
                version=version,
                path=first,
                more_paths=more,
                provider=self._provider,
            )
            pieces = self._pieces(request, sum(int(file.size_bytes) for file in waiting))
            for data in _parted(pieces, [int(file.size_bytes) for file in waiting]):
                _place(waiting[0], paths[waiting[0].path], data)
                self._advance(len(data), received=len(data))
                waiting.popleft()

        persevere(attempt, lambda: -len(waiting), sleep=self._sleep)

    def _in_place(self, file: models_pb2.File, path: Path) -> bool:
        """Whether the file is there already, which is progress as well."""
        with _writing(path):
            size = int(file.size_bytes)
            there = path.is_file() and path.stat().st_size == size and _sha256_of(path) == file.sha256
        if there:
            self._advance(size)
        return there

    def _fill(self, version: str, file: models_pb2.File, target: PartialFile) -> None:
        """Completes the temporary file. Raises DataLoss if it is not what was pushed."""
        resumed_at = target.resume(int(file.size_bytes))
        self._advance(resumed_at)
        self._receive(version, file, target)
        if target.sha256 != file.sha256 and resumed_at:
            # Blame what was there: a crash can leave blocks that never reached the disk. Once more, from the start.
            self._advance(-target.size)
            target.clear()
            self._receive(version, file, target)
        if target.sha256 != file.sha256:
            target.remove()
            raise _mismatch(file, target.sha256)

    def _receive(self, version: str, file: models_pb2.File, target: PartialFile) -> None:
        def attempt() -> None:
            left = int(file.size_bytes) - target.size
            if left:
                request = weights_pb2.ReadFileRequest(
                    manager_id=self._manager,
                    model_name=self._model,
                    version=version,
                    path=file.path,
                    offset=target.size,
                    provider=self._provider,
                )
                self._append(self._pieces(request, left), target)

        persevere(attempt, lambda: target.size, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise _Stopped

    def _append(self, pieces: Iterator[memoryview], target: PartialFile) -> None:
        # What both stages were given is in file and digest alike when the block is left, whatever ended it.
        with (
            Stage(target.write, waiting=4, name="write") as writing,
            Stage(target.digest, waiting=4, name="sha256") as hashing,
        ):
            for data in pieces:
                writing.put(data)
                hashing.put(data)
                self._advance(len(data), received=len(data))

    def _pieces(self, request: weights_pb2.ReadFileRequest, length: int) -> Iterator[memoryview]:
        """The bytes of a range, no more and no fewer."""
        stream = self._connection.route.begin(bulk.read_file, request, LONG_DEADLINE)
        self._calls.add(stream.call)
        try:
            for message in stream.answers():
                if self._stopped.is_set():
                    raise _Stopped
                data = memoryview(bulk.decode_data(message))
                length -= len(data)
                if length < 0:
                    raise DataLoss("The server sent more than the file holds.", reason="ANSWER_TOO_LONG")
                yield data
        finally:
            self._calls.discard(stream.call)
        if length:
            raise Unavailable("The stream ended before the file did.", reason="STREAM_CUT")

    def _advance(self, done: int, *, received: int = 0) -> None:
        with self._counting:
            self._progress.done += done
            self._progress.received += received
            self._report(self._progress)


def _groups(files: Sequence[models_pb2.File]) -> Iterator[list[models_pb2.File]]:
    """Large files each by itself, small ones in as many groups as there are workers, or more."""
    small = [file for file in files if file.size_bytes <= _SMALL]
    share = min(_GROUP, sum(int(file.size_bytes) for file in small) // _WORKERS)
    group: list[models_pb2.File] = []
    size = 0
    for file in small:
        group.append(file)
        size += int(file.size_bytes)
        if size > share or len(group) >= _GROUP_FILES:
            yield group
            group, size = [], 0
    if group:
        yield group
    yield from ([file] for file in files if file.size_bytes > _SMALL)


def _parted(pieces: Iterator[memoryview], sizes: Sequence[int]) -> Iterator[bytes]:
    """The bytes of the pieces again, in parts of these sizes, which are all there is."""
    waiting = bytearray()
    for size in sizes:
        while len(waiting) < size and (piece := next(pieces, None)) is not None:
            waiting += piece
        yield bytes(waiting[:size])
        del waiting[:size]
    # Behind the last byte the end is checked.
    for _ in pieces:
        pass


def _place(file: models_pb2.File, path: Path, data: bytes) -> None:
    """Writes a small file that came whole. Raises DataLoss if it is not what was pushed."""
    came = hashlib.sha256(data).hexdigest()
    if came != file.sha256:
        raise _mismatch(file, came)
    with _writing(path):
        _make_folder(path.parent)
        with partial_file.opened(path, file.sha256) as target:
            target.clear()
            target.write(memoryview(data))
            target.become(path)


def _mismatch(file: models_pb2.File, came: str) -> DataLoss:
    message = f"{file.path} came with SHA-256 {came} instead of {file.sha256}. Nothing was written."
    return DataLoss(message, reason="SHA256_MISMATCH")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says of an OSError inside that this path can't be written."""
    try:
        yield
    except OSError as error:
        raise LocalFileError(f"{path} can't be written: {error.strerror}.", reason="TARGET_UNWRITABLE") from None


def read(connection: Connection, request: weights_pb2.ReadFileRequest) -> bytes:
    """A range of a file, held in memory: for tensors, not for whole models. Raises OutOfRange, NotFound, DataLoss."""

    def attempt() -> bytes:
        stream = connection.route.begin(bulk.read_file, request, LONG_DEADLINE)
        return b"".join(bulk.decode_data(message) for message in stream.answers())

    data = connection.repeated(attempt, Repeat.SAFE)
    if request.HasField("length") and len(data) > request.length:
        raise DataLoss("The server sent more than was asked for.", reason="ANSWER_TOO_LONG")
    return data


def read_tensor(connection: Connection, request: weights_pb2.ReadFileRequest) -> Tensor:
    """The tensor that the request names. Raises NotFound, FailedPrecondition, DataLoss."""

    def attempt() -> Tensor:
        answers = connection.route.begin(bulk.read_file, request, LONG_DEADLINE).answers()
        first = weights_pb2.ReadFileResponse.FromString(next(answers, b""))
        if not first.HasField("tensor"):
            raise DataLoss("The server's answer does not fit the question.", reason="ANSWER_MALFORMED")
        data = b"".join((first.data, *map(bulk.decode_data, answers)))
        return Tensor(request.tensor, first.tensor.dtype, tuple(first.tensor.shape), data)

    return connection.repeated(attempt, Repeat.SAFE)


def save_tensor(tensor: Tensor, destination: str | Path) -> Path:
    """Writes a safetensors file with the tensor alone, whole or not at all; returns where. Raises LocalFileError."""
    name = f"{tensor.name.replace('/', '_')}.safetensors"
    path = targets([name], destination)[name]
    data = tensor.safetensors()
    with _writing(path):
        _make_folder(path.parent)
        with partial_file.opened(path, hashlib.sha256(data).hexdigest()) as target:
            target.clear()
            target.write(memoryview(data))
            target.become(path)
    _sync({path.parent})
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{error.filename} is not a folder, so nothing can be written below it. Name another place."
        raise LocalFileError(message, reason="TARGET_NOT_A_FOLDER") from None


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        digest: Any = hashlib.file_digest(file, "sha256")
    return str(digest.hexdigest())


def _sync(folders: set[Path]) -> None:
    for folder in folders:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            message = f"{folder} can't be brought to the disk: {error.strerror}."
            raise LocalFileError(message, reason="TARGET_UNWRITABLE") from None
