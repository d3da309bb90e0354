"""FileService. Both methods are served raw: bytes in, bytes out (`bulk_frames`)."""

from collections.abc import Iterator
from itertools import chain

import grpc

from services.models import bulk_frames
from services.models.messages import version_message
from services.models.presence import Presence
from services.models.presented_code import access_code
from services.models.reads import Reader
from services.models.receive import FileReceiver, FileTarget
from services.shared.call import caller
from strongroom.models.v1 import files_pb2 as pb
from strongroom.models.v1 import files_pb2_grpc, models_pb2

# The gateway turns each message into a piece of the body; it has a limit for them.
_MESSAGE_BYTES = 1 << 20
# The gateway makes it the answer's content-length.
_LENGTH_HEADER = "x-content-length"


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
        presence = Presence(context)
        body = chain([memoryview(first.body.data)], map(bulk_frames.parse_body, presence.until_end(messages)))
        version, manifest = self._files.store(
            caller(context).id,
            target,
            body,
            presence.check,
            access_code=access_code(context),
            compression_level=first.compression_level,
        )
        return version_message(version, manifest.files)

    def GetFile(self, request: pb.GetFileRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        length = request.length if request.HasField("length") else None
        reader = self._reader.preferring(request.provider)
        opened = reader.open(
            request.manager_id,
            request.model_name,
            request.version,
            request.path,
            request.offset,
            length,
            access_code=access_code(context),
            tensor=request.tensor,
        )
        messages = bulk_frames.grouped(reader.read(opened), _MESSAGE_BYTES)
        # The first bytes are there, and authentic, before the answer is a success.
        first = next(messages, [])
        context.send_initial_metadata(((_LENGTH_HEADER, str(opened.length)),))
        yield bulk_frames.encode_body(first, first=True)
        for pieces in messages:
            yield bulk_frames.encode_body(pieces, first=False)
