"""AccessService."""

import grpc

from services.auth.explain import Explainer, Outcome
from services.auth.messages import grant_message
from services.shared.call import caller
from strongroom.auth.v1 import access_pb2 as pb
from strongroom.auth.v1 import access_pb2_grpc


class AccessServicer(access_pb2_grpc.AccessServiceServicer):
    """Explains who may do what."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer

    def ExplainAccess(
        self, request: pb.ExplainAccessRequest, context: grpc.ServicerContext
    ) -> pb.ExplainAccessResponse:
        found = self._explainer.explain(caller(context), request.principal, request.method, request.resource)
        return pb.ExplainAccessResponse(
            allowed=found.allowed,
            principal=found.principal.id,
            method=found.subject.lstrip("/"),
            rules=map(_rule, found.outcomes),
            explanation=found.sentence(),
        )


def _rule(outcome: Outcome) -> pb.RuleOutcome:
    return pb.RuleOutcome(
        kind=outcome.kind,
        permission=outcome.permission,
        resource=outcome.resource,
        passed=outcome.passed,
        decided_by=map(grant_message, outcome.decided_by),
    )
