"""Pulling: each file into a temporary file beside its place, checked as a whole, then renamed.

    ReadFile ──► temporary file ──► disk, as it comes
        └──────► SHA-256                                 several files at a time

A pull that was interrupted continues with the temporary file it left. A file that is there already and has the right
SHA-256 is left alone. At no moment does a wrong or half byte stand under the final name.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from strongroom import bulk, partial_file
from strongroom.connection import Connection
from strongroom.errors import DataLoss, LocalFileError, Unavailable
from strongroom.models.v1 import models_pb2, models_pb2_grpc, weights_pb2
from strongroom.partial_file import PartialFile
from strongroom.persevere import persevere
from strongroom.retries import Repeat
from strongroom.stage import Stage
from strongroom.tree import targets

# Files at a time: enough that small ones do not wait for round trips and disk one after another.
_WORKERS = 4


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
        paths = targets([file.path for file in version.files], destination)
        self._progress.total = int(version.size_bytes)
        with ThreadPoolExecutor(_WORKERS, "pull") as workers:
            running = [workers.submit(self._pull, version.version, file, paths[file.path]) for file in version.files]
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

    def _pull(self, version: str, file: models_pb2.File, path: Path) -> None:
        size = int(file.size_bytes)
        try:
            if path.is_file() and path.stat().st_size == size and _sha256_of(path) == file.sha256:
                self._advance(size)
                return
            _make_folder(path.parent)
            with partial_file.opened(path, file.sha256) as target:
                self._fill(version, file, target)
                target.become(path)
        except OSError as error:
            raise LocalFileError(f"{path} can't be written: {error.strerror}.", reason="TARGET_UNWRITABLE") from None

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
            message = f"{file.path} came with SHA-256 {target.sha256} instead of {file.sha256}. Nothing was written."
            raise DataLoss(message, reason="SHA256_MISMATCH")

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
        call = self._connection.begin(bulk.read_file(self._connection.channel), request)
        self._calls.add(call)
        try:
            for message in self._connection.answers(call):
                if self._stopped.is_set():
                    raise _Stopped
                data = memoryview(bulk.decode_data(message))
                length -= len(data)
                if length < 0:
                    raise DataLoss("The server sent more than the file holds.", reason="ANSWER_TOO_LONG")
                yield data
        finally:
            self._calls.discard(call)
        if length:
            raise Unavailable("The stream ended before the file did.", reason="STREAM_CUT")

    def _advance(self, done: int, *, received: int = 0) -> None:
        with self._counting:
            self._progress.done += done
            self._progress.received += received
            self._report(self._progress)


def read(connection: Connection, request: weights_pb2.ReadFileRequest) -> bytes:
    """A range of a file, held in memory: for tensors, not for whole models. Raises OutOfRange, NotFound, DataLoss."""

    def attempt() -> bytes:
        call = connection.begin(bulk.read_file(connection.channel), request)
        return b"".join(bulk.decode_data(message) for message in connection.answers(call))

    data = connection.repeated(attempt, Repeat.SAFE)
    if request.HasField("length") and len(data) > request.length:
        raise DataLoss("The server sent more than was asked for.", reason="ANSWER_TOO_LONG")
    return data


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
