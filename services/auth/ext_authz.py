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
from services.auth.networks import network
from services.shared.access import CHECK_METHOD, REPORT_METHOD
from services.shared.channels import IDENTITY_HEADER
from services.shared.layers import REQUEST_ID_HEADER
from strongroom.edge.v1 import external_auth_pb2 as edge
from strongroom.edge.v1 import reports_pb2 as reports

_CHECKS = Counter("strongroom_edge_checks_total", "Requests that the gateway asked about, by outcome.", ["outcome"])
_ADMITTED, _REFUSED, _LIMITED = (_CHECKS.labels(outcome) for outcome in ("admitted", "refused", "limited"))

# Upstream services accept identity tokens alone, so keys and foreign tokens end at the edge.
_CREDENTIAL_HEADERS = ["x-api-key", "authorization"]
# The gateway has taken them away: it must see one at most.
SEVERAL_HEADER = "x-strongroom-several-credentials"
# Tells the gateway by what it counts a request; the name is that of a header where it asks over HTTP.
CREDENTIAL_HEADER = "x-strongroom-credential"
_OK = status_pb2.Status(code=code_pb2.OK)
_CODES = {401: code_pb2.UNAUTHENTICATED, 404: code_pb2.NOT_FOUND, 429: code_pb2.RESOURCE_EXHAUSTED}


@dataclass(frozen=True, slots=True)
class Limited:
    """Not judged: too much of this address was refused; try again after so many seconds."""

    seconds: float
    message: str = "Too many refused requests from this address."


Verdict = Admitted | Refused | Limited


@dataclass(frozen=True)
class Edge:
    """Answers the gateway."""

    admission: Admission
    guesses: Guesses
    events: EdgeEvents

    def judge(self, attempt: Attempt) -> Verdict:
        """Whether a request may pass, and as whom."""
        wait = self.guesses.seconds_to_wait(attempt)
        if wait:
            _LIMITED.inc()
            return Limited(wait)
        outcome = self.admission.decide(attempt)
        if isinstance(outcome, Admitted):
            _ADMITTED.inc()
            self.guesses.admitted(attempt)
        else:
            _REFUSED.inc()
            self.guesses.refused(attempt)
        return outcome

    def check(self, request: edge.CheckRequest, _context: grpc.ServicerContext) -> edge.CheckResponse:
        """Envoy's question."""
        attempt = _attempt(request)
        verdict = self.judge(attempt)
        return _ok(verdict, attempt) if isinstance(verdict, Admitted) else _denied(verdict)

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
    several = SEVERAL_HEADER in headers
    return Attempt(
        method=method,
        original_path="" if method == path else path,
        api_key="" if several else headers.get("x-api-key"),
        authorization="" if several else headers.get("authorization"),
        request_id=headers.get(REQUEST_ID_HEADER, ""),
        address=request.attributes.source.address.socket_address.address,
    )


def credential_of(admitted: Admitted, attempt: Attempt) -> str:
    """By what the gateway counts the request: its credential, or its address where it needed none."""
    if attempt.api_key is None and attempt.authorization is None:
        return f"address:{network(attempt.address)}"
    return admitted.credential_id


def _ok(admitted: Admitted, attempt: Attempt) -> edge.CheckResponse:
    answer = edge.CheckResponse(status=_OK, ok_response=edge.OkHttpResponse(headers_to_remove=_CREDENTIAL_HEADERS))
    if admitted.identity_token:
        header = answer.ok_response.headers.add().header
        header.key, header.value = IDENTITY_HEADER, admitted.identity_token
        answer.dynamic_metadata[CREDENTIAL_HEADER] = credential_of(admitted, attempt)
    return answer


def _denied(refused: Refused | Limited) -> edge.CheckResponse:
    """Status and text only: the gateway makes a problem document or an ErrorInfo of every failure at the edge."""
    status = 429 if isinstance(refused, Limited) else refused.status
    denied = edge.DeniedHttpResponse(status=edge.HttpStatus(code=status), body=refused.message)
    if isinstance(refused, Limited):
        header = denied.headers.add().header
        header.key, header.value = "retry-after", str(math.ceil(refused.seconds))
    return edge.CheckResponse(status=status_pb2.Status(code=_CODES[status]), denied_response=denied)
