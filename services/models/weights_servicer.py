"""WeightsService. Its two bulk methods are served raw: bytes in, bytes out (`bulk_frames`)."""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, Protocol

import grpc

from services.models import bulk_frames, uploads
from services.models.commit import Committer
from services.models.messages import version_message
from services.models.presented_code import access_code
from services.models.proposals import proposed
from services.models.reads import Reader
from services.models.receive import Receiver
from services.models.uploads import UploadName, Uploads
from services.shared.call import caller, client_address, header
from services.shared.channels import IDENTITY_HEADER
from services.shared.private_socket import PrivateSocket
from strongroom.models.v1 import models_pb2, weights_pb2_grpc
from strongroom.models.v1 import weights_pb2 as pb

# RFC 863. Which one does not matter.
_DISCARD = 9


class WeightsServicer(weights_pb2_grpc.WeightsServiceServicer):
    """Moves weights."""

    def __init__(
        self,
        uploads: Uploads,
        receiver: Receiver,
        committer: Committer,
        reader: Reader,
        bulk_socket: PrivateSocket | None = None,
    ) -> None:
        self._uploads = uploads
        self._receiver = receiver
        self._committer = committer
        self._reader = reader
        self._bulk_socket = bulk_socket

    def register(self, server: grpc.Server) -> None:
        """Adds the service. What is decoded by hand comes after the generated registration, which it replaces."""
        weights_pb2_grpc.add_WeightsServiceServicer_to_server(self, server)
        raw: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "CommitUpload": grpc.unary_unary_rpc_method_handler(
                self.CommitUpload, bulk_frames.parse_commit, models_pb2.Version.SerializeToString
            ),
            "WriteChunks": grpc.stream_unary_rpc_method_handler(
                self.WriteChunks, response_serializer=pb.WriteChunksResponse.SerializeToString
            ),
            "ReadFile": grpc.unary_stream_rpc_method_handler(
                self.ReadFile, request_deserializer=pb.ReadFileRequest.FromString
            ),
        }
        server.add_registered_method_handlers(pb.DESCRIPTOR.services_by_name["WeightsService"].full_name, raw)

    def CreateUpload(self, request: pb.CreateUploadRequest, context: grpc.ServicerContext) -> pb.CreateUploadResponse:
        upload, resumed = self._uploads.create(
            caller(context).id,
            request.manager_id,
            request.model_name,
            request.version,
            access_code=access_code(context),
            compression_level=request.compression_level,
        )
        return pb.CreateUploadResponse(upload_id=upload.name.upload_id, version=upload.version, resumed=resumed)

    def HasChunks(self, request: pb.HasChunksRequest, context: grpc.ServicerContext) -> pb.HasChunksResponse:
        any_chunk = uploads.may_read_all(caller(context), request.manager_id)
        present = self._uploads.present(
            _name(request, context), request.digests, any_chunk=any_chunk, access_code=access_code(context)
        )
        return pb.HasChunksResponse(present=present)

    def CommitUpload(self, request: pb.CommitUploadRequest, context: grpc.ServicerContext) -> models_pb2.Version:
        any_chunk = uploads.may_read_all(caller(context), request.manager_id)
        files = [proposed(file.path, file.sha256, file.chunk_digests, file.chunk_lengths) for file in request.files]
        version, manifest = self._committer.commit(
            _name(request, context), files, any_chunk=any_chunk, access_code=access_code(context)
        )
        return version_message(version, manifest.files)

    def GetRoute(self, request: pb.GetRouteRequest, context: grpc.ServicerContext) -> pb.GetRouteResponse:
        # Who calls from elsewhere can't enter it.
        if self._bulk_socket is None or not _is_of_this_machine(client_address(context)):
            return pb.GetRouteResponse()
        identity = self._bulk_socket.pass_for(header(context, IDENTITY_HEADER))
        return pb.GetRouteResponse(socket=self._bulk_socket.path, identity=identity)

    def AbortUpload(self, request: pb.AbortUploadRequest, context: grpc.ServicerContext) -> pb.AbortUploadResponse:
        self._uploads.abort(_name(request, context))
        return pb.AbortUploadResponse()

    def WriteChunks(  # type: ignore[override]  # raw
        self, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> pb.WriteChunksResponse:
        # The layers have decoded the first message and decided on it; here it is bytes like the others.
        header = bulk_frames.parse_header(next(messages))
        with self._receiver.ingest(_name(header, context), access_code(context)) as ingest:
            for message in messages:
                for chunk in bulk_frames.parse_frame(message).chunks():
                    ingest.put(chunk)
            totals = ingest.finish()
        answer = pb.WriteChunksResponse(chunks_received=totals.chunks_received, bytes_received=totals.bytes_received)
        if uploads.may_read_all(caller(context), header.manager_id):
            # To others it would say whether somebody else has stored what they send.
            answer.chunks_deduplicated = totals.chunks_deduplicated
            answer.bytes_stored = totals.bytes_stored
        return answer

    def ReadFile(  # type: ignore[override]  # raw
        self, request: pb.ReadFileRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
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
            more_paths=request.more_paths,
        )
        if opened.tensor is not None:
            info = pb.TensorInfo(dtype=opened.tensor.dtype, shape=opened.tensor.shape)
            yield pb.ReadFileResponse(tensor=info).SerializeToString()
        yield from reader.messages(opened, lambda data: bulk_frames.encode_data([data]))


class _NamesUpload(Protocol):
    manager_id: str
    model_name: str
    upload_id: str


def _name(request: _NamesUpload, context: grpc.ServicerContext) -> UploadName:
    return UploadName(request.manager_id, request.model_name, request.upload_id, caller(context).id)


def _is_of_this_machine(address: str) -> bool:
    """Whether an address is one of ours: of a client on the same machine Envoy tells the address of an interface
    (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-for)."""
    try:
        known = ipaddress.ip_address(address)
        family = socket.AF_INET6 if known.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Sends nothing. What goes to an address of this machine comes from that address; binding would not tell:
            # some machines bind any address (net.ipv4.ip_nonlocal_bind), and all of them that of no interface.
            probe.connect((address, _DISCARD))
            return known.is_loopback or ipaddress.ip_address(probe.getsockname()[0]) == known
    except (ValueError, OSError):
        return False
