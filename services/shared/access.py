"""Access rules: read from the protos, decided on the decoded request."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from services.shared.errors import InvalidArgument, PermissionDenied, PermissionMissing, Unauthenticated
from services.shared.identity import Principal
from strongroom.options.v1 import options_pb2

# Methods that carry no rule because their protos are not ours: what anyone may ask, and Envoy's question to auth.
PROTOCOL_METHODS = re.compile(
    r"/grpc\.health\.v1\.Health/\w+|/grpc\.reflection\.v1(alpha)?\.ServerReflection/\w+|/envoy\.service\.auth\.v3\.Authorization/Check"
)

# The question whether a service is well, after which gateway and supervisor act.
HEALTH_METHOD = "/grpc.health.v1.Health/Check"
# Envoy's question, which every request with an API key waits for.
CHECK_METHOD = "/envoy.service.auth.v3.Authorization/Check"
# What the gateway tells auth.
REPORT_METHOD = "/strongroom.edge.v1.EdgeService/ReportRefusedOrigin"

# The class of use of methods that name none.
OTHER_USE = "other"

_FIELD = re.compile(r"\{([a-z_.]+)\}")
# Twice what the longest valid names come to. Rules are decided before names are validated, and the decisions are kept:
# names of megabytes would be matched for hours and fill the memory.
_MAX_RESOURCE_CHARACTERS = 1024


@dataclass(frozen=True)
class Method:
    """A method, the rules that guard it and what its success looks like over HTTP.

    `protocol` methods (health, reflection, Envoy's check) have no rules and are open to who can reach the port.
    """

    path: str
    rules: tuple[options_pb2.AccessRule, ...] = ()
    protocol: bool = False
    http_status: int = 0
    # Whether each call is an audit event, and the class of use it counts as.
    audited: bool = False
    usage_class: str = OTHER_USE
    # Goes on with a use that another call began: takes nothing out of a quota.
    continues_use: bool = False
    request_type: type[Message] | None = None

    @cached_property
    def public(self) -> bool:
        """Whether anyone may call it, without a credential."""
        return self.protocol or any(rule.public for rule in self.rules)


def methods_of(service_names: Iterable[str]) -> dict[str, Method]:
    """The methods of the named services, by their path `/package.Service/Method`."""
    pool = descriptor_pool.Default()
    methods = {}
    for name in service_names:
        for descriptor in pool.FindServiceByName(name).methods:
            method = _method(descriptor)
            methods[method.path] = method
    return methods


def _method(descriptor: MethodDescriptor) -> Method:
    options: Any = descriptor.GetOptions()
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        rules=tuple(options.Extensions[options_pb2.access]),
        http_status=options.Extensions[options_pb2.http_status],
        audited=options.Extensions[options_pb2.audited],
        usage_class=options.Extensions[options_pb2.usage_class] or OTHER_USE,
        continues_use=options.Extensions[options_pb2.continues_use],
        request_type=message_factory.GetMessageClass(descriptor.input_type),
    )


def authorize(method: Method, principal: Principal | None, request: Callable[[], Message]) -> None:
    """Lets a call pass that satisfies every rule of its method.

    Args:
        method: the method called.
        principal: the caller, or None without a credential.
        request: gives the decoded request, of a stream its first message. Called for known callers alone: a stranger
            who opens a stream and sends nothing is not waited for.

    Raises:
        Unauthenticated: a credential is needed and there is none.
        InvalidArgument: the request names something longer than anything there is.
        PermissionDenied: the caller may not; the message names the missing permission.
    """
    if method.public:
        return
    if principal is None:
        raise Unauthenticated("Authentication required", reason="CREDENTIAL_MISSING")
    if not method.rules:
        raise PermissionDenied("This method has no access rule, so nobody may call it.", reason="ACCESS_RULE_MISSING")
    if all(rule.when for rule in method.rules):
        raise PermissionDenied("No access rule of this method always counts.", reason="ACCESS_RULE_MISSING")
    for rule in method.rules:
        if counts(rule, request()):
            _check(rule, principal, request())


def counts(rule: options_pb2.AccessRule, request: Message) -> bool:
    """Whether the rule is about this request: always, or if a field of it is set."""
    return not rule.when or bool(getattr(request, rule.when))


def _check(rule: options_pb2.AccessRule, principal: Principal, request: Message) -> None:
    if rule.services:
        if not (principal.service and principal.id in rule.services):
            raise PermissionDenied("Only services of this installation may call this method.", reason="SERVICE_ONLY")
    elif principal.service:
        raise PermissionDenied("Services may not call this method.", reason="SERVICE_NOT_ALLOWED")
    elif rule.filtered:
        if not principal.allows_anywhere(rule.permission):
            raise PermissionMissing(rule.permission, "any resource")
    elif rule.permission:
        resource = fill(rule.resource, request)
        if len(resource) > _MAX_RESOURCE_CHARACTERS:
            raise InvalidArgument("A name in the request is too long.", reason="FIELD_INVALID")
        if not principal.allows(rule.permission, resource):
            raise PermissionMissing(rule.permission, resource)
    elif not rule.authenticated:
        raise PermissionDenied("This method's access rule is empty: nobody may call it.", reason="ACCESS_RULE_MISSING")


def fill(template: str, request: Message) -> str:
    """`managers/{manager_id}` with the fields of the request in place of their names."""

    def value(match: re.Match[str]) -> str:
        item: Any = request
        for name in match.group(1).split("."):
            item = getattr(item, name)
        return str(item)

    return _FIELD.sub(value, template)
