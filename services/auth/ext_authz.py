"""Envoy's external authorization, `/envoy.service.auth.v3.Authorization/Check`, with our own subset of its messages."""

import base64

import grpc
from google.rpc import code_pb2, status_pb2

from services.auth.admission import CHECK_METHOD, Admission, Admitted, Attempt, Refused
from services.shared.channels import IDENTITY_HEADER
from services.shared.errors import Unauthenticated
from services.shared.layers import REQUEST_ID_HEADER
from services.shared.status import status_of
from strongroom.edge.v1 import external_auth_pb2 as edge

# Upstream services accept identity tokens alone, so keys and foreign tokens end at the edge.
_CREDENTIAL_HEADERS = ["x-api-key", "authorization"]
_ORIGINAL_PATH_HEADER = "x-envoy-original-path"


def register(server: grpc.Server, admission: Admission) -> None:
    """Adds Envoy's method to the server: generated code would claim it for a package of ours."""

    def check(request: edge.CheckRequest, _context: grpc.ServicerContext) -> edge.CheckResponse:
        attempt = _attempt(request)
        outcome = admission.decide(attempt)
        return _ok(outcome) if isinstance(outcome, Admitted) else _denied(outcome, attempt)

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
    headers = [_header(IDENTITY_HEADER, admitted.identity_token)] if admitted.identity_token else []
    return edge.CheckResponse(
        status=status_pb2.Status(code=code_pb2.OK),
        ok_response=edge.OkHttpResponse(headers=headers, headers_to_remove=_CREDENTIAL_HEADERS),
    )


def _denied(refused: Refused, attempt: Attempt) -> edge.CheckResponse:
    unauthenticated = refused.status == 401
    headers = []
    if unauthenticated:
        # RFC 9110, section 11.6.1: a 401 names a scheme.
        headers.append(_header("www-authenticate", 'Bearer realm="strongroom"'))
    if unauthenticated and not attempt.original_path:
        # Envoy tells a gRPC caller code and message; the ErrorInfo that goes with every error of ours comes from us.
        status = status_of(Unauthenticated(refused.message, reason=refused.reason), attempt.request_id)
        headers.append(_header("grpc-status-details-bin", base64.b64encode(status.SerializeToString()).decode()))
    return edge.CheckResponse(
        status=status_pb2.Status(code=code_pb2.UNAUTHENTICATED if unauthenticated else code_pb2.NOT_FOUND),
        denied_response=edge.DeniedHttpResponse(
            status=edge.HttpStatus(code=refused.status), headers=headers, body=refused.message
        ),
    )


def _header(key: str, value: str) -> edge.HeaderValueOption:
    return edge.HeaderValueOption(header=edge.HeaderValue(key=key, value=value))
