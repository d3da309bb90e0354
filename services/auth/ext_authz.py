"""What the gateway asks and tells: Envoy's external authorization, with our own subset of its messages, and reports.

Every request with an API key waits for the check, so it does without the layers around other methods: no log line (the
gateway writes one), no access rule. Whoever reaches this port may call both.
"""

import math
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2
from prometheus_client import Counter

from services.auth.admission import Admission, Admitted, Attempt, Refused
from services.auth.edge_events import EdgeEvents
from services.auth.guesses import Guesses
from services.shared.access import CHECK_METHOD, REPORT_METHOD
from services.shared.channels import IDENTITY_HEADER
from services.shared.layers import REQUEST_ID_HEADER
from strongroom.edge.v1 import external_auth_pb2 as edge
from strongroom.edge.v1 import reports_pb2 as reports

_CHECKS = Counter("strongroom_edge_checks_total", "Requests that the gateway asked about, by outcome.", ["outcome"])

# Upstream services accept identity tokens alone, so keys and foreign tokens end at the edge.
_CREDENTIAL_HEADERS = ["x-api-key", "authorization"]
# The gateway has taken them away: it must see one at most.
_SEVERAL_HEADER = "x-strongroom-several-credentials"
_OK = status_pb2.Status(code=code_pb2.OK)
_CODES = {401: code_pb2.UNAUTHENTICATED, 404: code_pb2.NOT_FOUND, 429: code_pb2.RESOURCE_EXHAUSTED}


@dataclass(frozen=True)
class Edge:
    """Answers the gateway."""

    admission: Admission
    guesses: Guesses
    events: EdgeEvents

    def check(self, request: edge.CheckRequest, _context: grpc.ServicerContext) -> edge.CheckResponse:
        """Whether a request may pass, and as whom."""
        attempt = _attempt(request)
        wait = self.guesses.seconds_to_wait(attempt)
        if wait:
            _CHECKS.labels("limited").inc()
            return _denied(Refused(429, "Too many refused requests from this address."), wait)
        outcome = self.admission.decide(attempt)
        if isinstance(outcome, Admitted):
            _CHECKS.labels("admitted").inc()
            self.guesses.admitted(attempt)
            return _ok(outcome)
        _CHECKS.labels("refused").inc()
        self.guesses.refused(attempt)
        return _denied(outcome)

    def report_refused_origin(
        self, request: reports.ReportRefusedOriginRequest, _context: grpc.ServicerContext
    ) -> reports.ReportRefusedOriginResponse:
        """Notes a website whose requests the gateway refused."""
        self.events.origin_refused(request.origin, request.address, request.path, max(1, request.count))
        return reports.ReportRefusedOriginResponse()


def register(server: grpc.Server, edge_: Edge) -> None:
    """Adds the gateway's methods to the server: generated code would claim Envoy's for a package of ours."""
    check = grpc.unary_unary_rpc_method_handler(
        edge_.check, edge.CheckRequest.FromString, edge.CheckResponse.SerializeToString
    )
    report = grpc.unary_unary_rpc_method_handler(
        edge_.report_refused_origin,
        reports.ReportRefusedOriginRequest.FromString,
        reports.ReportRefusedOriginResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((_handler(CHECK_METHOD, check), _handler(REPORT_METHOD, report)))


def _handler(path: str, handler: Any) -> grpc.GenericRpcHandler:
    service, _, method = path.lstrip("/").partition("/")
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _attempt(request: edge.CheckRequest) -> Attempt:
    http = request.attributes.request.http
    headers = http.headers
    path = http.path.partition("?")[0]
    # The gateway knows the method of a REST path; the path of a gRPC request is the method.
    method = request.attributes.context_extensions.get("method", path)
    several = _SEVERAL_HEADER in headers
    return Attempt(
        method=method,
        original_path="" if method == path else path,
        api_key="" if several else headers.get("x-api-key"),
        authorization="" if several else headers.get("authorization"),
        request_id=headers.get(REQUEST_ID_HEADER, ""),
        address=request.attributes.source.address.socket_address.address,
    )


def _ok(admitted: Admitted) -> edge.CheckResponse:
    ok = edge.OkHttpResponse(headers_to_remove=_CREDENTIAL_HEADERS)
    answer = edge.CheckResponse(status=_OK, ok_response=ok)
    if admitted.identity_token:
        header = answer.ok_response.headers.add().header
        header.key, header.value = IDENTITY_HEADER, admitted.identity_token
        # By it the gateway counts.
        answer.dynamic_metadata["cred"] = admitted.credential_id
    return answer


def _denied(refused: Refused, wait: float = 0.0) -> edge.CheckResponse:
    """Status and text only: the gateway makes a problem document or an ErrorInfo of every failure at the edge."""
    denied = edge.DeniedHttpResponse(status=edge.HttpStatus(code=refused.status), body=refused.message)
    if wait:
        header = denied.headers.add().header
        header.key, header.value = "retry-after", str(math.ceil(wait))
    return edge.CheckResponse(status=status_pb2.Status(code=_CODES[refused.status]), denied_response=denied)
