"""The upload protocol step by step, for tests that stop in the middle of it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc

from strongroom.chunking import Chunker, digest
from strongroom.models.v1 import (
    maintenance_pb2,
    maintenance_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    weights_pb2,
    weights_pb2_grpc,
)


def chunks_of(path: str, content: bytes) -> list[bytes]:
    """The chunks that a client cuts a file into."""
    chunker = Chunker(path)
    return [bytes(chunk) for piece in (chunker.feed(content), chunker.finish()) for chunk in piece]


def uploaded_file(path: str, content: bytes) -> weights_pb2.UploadedFile:
    chunks = chunks_of(path, content)
    return weights_pb2.UploadedFile(
        path=path,
        sha256=hashlib.sha256(content).digest(),
        chunk_digests=b"".join(digest(chunk) for chunk in chunks),
        chunk_lengths=[len(chunk) for chunk in chunks],
    )


@dataclass
class Uploads:
    """A caller's view of the models service, through the gateway."""

    channel: grpc.Channel
    key: str
    manager: str = "default"

    def __post_init__(self) -> None:
        self.metadata = [("x-api-key", self.key)]
        self.weights = weights_pb2_grpc.WeightsServiceStub(self.channel)
        self.models = models_pb2_grpc.ModelServiceStub(self.channel)
        self.maintenance = maintenance_pb2_grpc.MaintenanceServiceStub(self.channel)

    def create(self, model: str, version: str) -> str:
        request = weights_pb2.CreateUploadRequest(manager_id=self.manager, model_name=model, version=version)
        return self.weights.CreateUpload(request, metadata=self.metadata, timeout=20).upload_id

    def write(self, model: str, upload: str, chunks: Iterable[bytes]) -> weights_pb2.WriteChunksResponse:
        def messages() -> Iterator[weights_pb2.WriteChunksRequest]:
            header = weights_pb2.WriteChunksHeader(manager_id=self.manager, model_name=model, upload_id=upload)
            yield weights_pb2.WriteChunksRequest(header=header)
            for chunk in chunks:
                frame = weights_pb2.ChunkFrame(lengths=[len(chunk)], data=chunk)
                yield weights_pb2.WriteChunksRequest(frame=frame)

        return self.weights.WriteChunks(messages(), metadata=self.metadata, timeout=120)

    def commit(self, model: str, upload: str, files: Iterable[weights_pb2.UploadedFile]) -> models_pb2.Version:
        request = weights_pb2.CommitUploadRequest(
            manager_id=self.manager, model_name=model, upload_id=upload, files=list(files)
        )
        return self.weights.CommitUpload(request, metadata=self.metadata, timeout=60)

    def abort(self, model: str, upload: str) -> None:
        request = weights_pb2.AbortUploadRequest(manager_id=self.manager, model_name=model, upload_id=upload)
        self.weights.AbortUpload(request, metadata=self.metadata, timeout=20)

    def push(self, model: str, version: str, files: dict[str, bytes]) -> models_pb2.Version:
        """All steps at once."""
        upload = self.create(model, version)
        self.write(model, upload, (chunk for path, content in files.items() for chunk in chunks_of(path, content)))
        return self.commit(model, upload, [uploaded_file(path, content) for path, content in files.items()])

    def read(self, model: str, version: str, path: str) -> bytes:
        request = weights_pb2.ReadFileRequest(manager_id=self.manager, model_name=model, version=version, path=path)
        answers = self.weights.ReadFile(request, metadata=self.metadata, timeout=60)
        return b"".join(answer.data for answer in answers)

    def exists(self, model: str, version: str) -> bool:
        request = models_pb2.GetVersionRequest(manager_id=self.manager, model_name=model, version=version)
        try:
            self.models.GetVersion(request, metadata=self.metadata, timeout=20)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True

    def verify(self, model: str, version: str) -> models_pb2.VerifyVersionResponse:
        request = models_pb2.VerifyVersionRequest(manager_id=self.manager, model_name=model, version=version)
        return self.models.VerifyVersion(request, metadata=self.metadata, timeout=120)

    def delete(self, model: str, version: str) -> models_pb2.DeleteVersionResponse:
        request = models_pb2.DeleteVersionRequest(manager_id=self.manager, model_name=model, version=version)
        return self.models.DeleteVersion(request, metadata=self.metadata, timeout=60)

    def collect(self, *, dry_run: bool = False, min_age_seconds: int = 0) -> maintenance_pb2.CollectGarbageResponse:
        request = maintenance_pb2.CollectGarbageRequest(dry_run=dry_run, min_age_seconds=min_age_seconds)
        return self.maintenance.CollectGarbage(request, metadata=self.metadata, timeout=60)
