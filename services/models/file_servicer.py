"""FileService. Both methods are served raw: bytes in, bytes out (`bulk_frames`)."""

import threading
from collections.abc import Iterator
from itertools import chain

import grpc

from services.models import bulk_frames
from services.models.messages import version_message
from services.models.reads import Reader
from services.models.receive import FileReceiver, FileTarget
from services.shared.call import caller
from services.shared.errors import Aborted
from strongroom.models.v1 import files_pb2 as pb
from strongroom.models.v1 import files_pb2_grpc, models_pb2

# The gateway turns each message into a piece of the body; it has a limit for them.
_MESSAGE_BYTES = 1 << 20
# The gateway makes it the answer's content-length.
_LENGTH_HEADER = "x-content-length"
_NEWS_SECONDS = 0.02


class FileServicer(files_pb2_grpc.FileServiceServicer):
    """One file in, one file out."""

    def __init__(self, files: FileReceiver, reader: Reader) -> None:
        self._files = files
        self._reader = reader

    def register(self, server: grpc.Server) -> None:
        """Adds the service. The raw methods come after the generated registration, which they replace."""
        files_pb2_grpc.add_FileServiceServicer_to_server(self, server)
        raw = {
            "PutFile": grpc.stream_unary_rpc_method_handler(
                self.PutFile, response_serializer=models_pb2.Version.SerializeToString
            ),
            "GetFile": grpc.unary_stream_rpc_method_handler(
                self.GetFile, request_deserializer=pb.GetFileRequest.FromString
            ),
        }
        server.add_registered_method_handlers(pb.DESCRIPTOR.services_by_name["FileService"].full_name, raw)

    def PutFile(  # type: ignore[override]  # raw
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> models_pb2.Version:
        # The layers have decoded the first message and decided on it; here it is bytes like the others.
        first = bulk_frames.parse_put(next(messages))
        target = FileTarget(first.manager_id, first.model_name, first.version, first.path)
        presence = _Presence(context)
        body = chain([memoryview(first.body.data)], map(bulk_frames.parse_body, presence.until_end(messages)))
        version, manifest = self._files.store(
            caller(context).id, target, body, presence.check, compression_level=first.compression_level
        )
        return version_message(version, manifest.files)

    def GetFile(self, request: pb.GetFileRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        length = request.length if request.HasField("length") else None
        opened = self._reader.open(
            request.manager_id,
            request.model_name,
            request.version,
            request.path,
            request.offset,
            length,
            tensor=request.tensor,
        )
        messages = bulk_frames.grouped(self._reader.read(opened), _MESSAGE_BYTES)
        # The first bytes are there, and authentic, before the answer is a success.
        first = next(messages, [])
        context.send_initial_metadata(((_LENGTH_HEADER, str(opened.length)),))
        yield bulk_frames.encode_body(first, first=True)
        for pieces in messages:
            yield bulk_frames.encode_body(pieces, first=False)


class _Presence:
    """Whether the client is there still.

    grpcio ends the iterator of a stream that broke like one that ended, if it learns of the missing message before it
    learns of the cancellation: of 50 broken streams 8 were so. The news comes within milliseconds.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._gone = threading.Event()
        if not context.add_callback(self._gone.set):
            self._gone.set()

    def until_end(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        """The messages; at their end it waits for bad news, while what came is still being stored."""
        yield from messages
        self._gone.wait(_NEWS_SECONDS)
        self.check()

    def check(self) -> None:
        """Raises Aborted if the client has gone."""
        if self._gone.is_set():
            raise Aborted("The client went away before the end of its file.", reason="CLIENT_GONE")
