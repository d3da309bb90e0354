"""Envoy's external authorization, `/envoy.service.auth.v3.Authorization/Check`, with our own subset of its messages."""

import grpc
from google.rpc import code_pb2, status_pb2

from services.auth.admission import Admission, Admitted, Attempt, Refused
from services.shared.access import CHECK_METHOD
from services.shared.channels import IDENTITY_HEADER
from services.shared.layers import REQUEST_ID_HEADER
from strongroom.edge.v1 import external_auth_pb2 as edge

# Upstream services accept identity tokens alone, so keys and foreign tokens end at the edge.
_CREDENTIAL_HEADERS = ["x-api-key", "authorization"]
_ORIGINAL_PATH_HEADER = "x-envoy-original-path"
_CODES = {401: code_pb2.UNAUTHENTICATED, 404: code_pb2.NOT_FOUND}


def register(server: grpc.Server, admission: Admission) -> None:
    """Adds Envoy's method to the server: generated code would claim it for a package of ours."""

    def check(request: edge.CheckRequest, _context: grpc.ServicerContext) -> edge.CheckResponse:
        outcome = admission.decide(_attempt(request))
        return _ok(outcome) if isinstance(outcome, Admitted) else _denied(outcome)

    service, _, method = CHECK_METHOD.lstrip("/").partition("/")
    handler = grpc.unary_unary_rpc_method_handler(
        check, edge.CheckRequest.FromString, edge.CheckResponse.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))


def _attempt(request: edge.CheckRequest) -> Attempt:
    http = request.attributes.request.http
    headers = http.headers
    return Attempt(
        method=http.path.partition("?")[0],
        original_path=headers.get(_ORIGINAL_PATH_HEADER, ""),
        api_key=headers.get("x-api-key"),
        authorization=headers.get("authorization"),
        request_id=headers.get(REQUEST_ID_HEADER, ""),
        address=request.attributes.source.address.socket_address.address,
    )


def _ok(admitted: Admitted) -> edge.CheckResponse:
    ok = edge.OkHttpResponse(headers_to_remove=_CREDENTIAL_HEADERS)
    if admitted.identity_token:
        identity = edge.HeaderValue(key=IDENTITY_HEADER, value=admitted.identity_token)
        ok.headers.append(edge.HeaderValueOption(header=identity))
    return edge.CheckResponse(status=status_pb2.Status(code=code_pb2.OK), ok_response=ok)


def _denied(refused: Refused) -> edge.CheckResponse:
    """Status and text only: the gateway makes a problem document or an ErrorInfo of every failure at the edge."""
    return edge.CheckResponse(
        status=status_pb2.Status(code=_CODES[refused.status]),
        denied_response=edge.DeniedHttpResponse(status=edge.HttpStatus(code=refused.status), body=refused.message),
    )
