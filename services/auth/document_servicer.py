"""DocumentService."""

import grpc
from google.api import httpbody_pb2

from services.auth.documents import Document, Documents
from services.shared.call import answer_header
from strongroom.auth.v1 import documents_pb2 as pb
from strongroom.auth.v1 import documents_pb2_grpc


class DocumentServicer(documents_pb2_grpc.DocumentServiceServicer):
    """What browsers and generators read."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def GetOpenApi(self, _request: pb.GetOpenApiRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        return _body(self._documents.openapi, context)

    def GetDocs(self, _request: pb.GetDocsRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        return _body(self._documents.docs, context)

    def GetRedoc(self, _request: pb.GetRedocRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        return _body(self._documents.redoc, context)

    def GetAsset(self, request: pb.GetAssetRequest, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        return _body(self._documents.asset(request.name), context)


def _body(document: Document, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
    for name, value in document.headers:
        answer_header(context, name, value)
    return httpbody_pb2.HttpBody(content_type=document.content_type, data=document.data)
