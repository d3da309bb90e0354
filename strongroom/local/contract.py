"""What the gateway has to know about the methods, from the descriptor set: so it never falls behind the protos."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet, MethodDescriptorProto

from strongroom.options.v1 import options_pb2

SERVICES = ("auth", "models", "secrets")

# Served by auth for everybody; their protos are not ours and carry no rules.
PUBLIC_PROTOCOLS = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


_PATH_FIELD = re.compile(r"\{([a-z0-9_.]+)(?:=[^}]*)?\}")


@dataclass(frozen=True)
class Binding:
    """One HTTP verb and path template of a method."""

    verb: str
    template: str
    body: str

    @property
    def path_fields(self) -> frozenset[str]:
        """The request's fields that stand in the path."""
        return frozenset(_PATH_FIELD.findall(self.template))


@dataclass(frozen=True)
class Method:
    """A method that users may call."""

    upstream: str
    service: str
    name: str
    public: bool
    client_streaming: bool
    server_streaming: bool
    # Whether asking twice changes nothing more than asking once.
    idempotent: bool
    bindings: tuple[Binding, ...]
    fields: frozenset[str]

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"

    @property
    def streaming(self) -> bool:
        return self.client_streaming or self.server_streaming

    @property
    def static(self) -> bool:
        """Whether it shows everybody the same: public, and nothing is sent to it."""
        return self.public and all(binding.verb == "GET" for binding in self.bindings)

    def query_fields(self) -> frozenset[str]:
        """The fields that one of the bindings takes from the query."""
        return frozenset().union(
            *(self.fields - binding.path_fields - {binding.body} for binding in self.bindings if binding.body != "*")
        )


@dataclass(frozen=True)
class Contract:
    """All methods that users may call. Methods for services alone, or without a rule, are left out."""

    methods: tuple[Method, ...]

    @classmethod
    def load(cls, descriptor_set: Path) -> "Contract":
        """Reads a serialized FileDescriptorSet with all of its imports."""
        files = FileDescriptorSet.FromString(descriptor_set.read_bytes())
        return cls(tuple(_methods(files)))

    def of(self, upstream: str) -> tuple[Method, ...]:
        """The methods that one of the services serves."""
        return tuple(method for method in self.methods if method.upstream == upstream)

    def services(self, upstream: str) -> list[str]:
        """The full names of a service's gRPC services that have HTTP bindings."""
        return sorted({method.service for method in self.of(upstream) if method.bindings})

    def path_only_fields(self, upstream: str) -> list[str]:
        """Fields that stand in paths and in no query. By default a query parameter would override the path."""
        in_paths = {
            field for method in self.of(upstream) for binding in method.bindings for field in binding.path_fields
        }
        in_queries = {field for method in self.of(upstream) for field in method.query_fields()}
        return sorted(in_paths - in_queries)

    def verbs(self) -> dict[str, list[str]]:
        """The verbs of each path, by a Lua pattern that matches the path."""
        found: dict[str, set[str]] = {}
        for method in self.methods:
            for binding in method.bindings:
                found.setdefault(lua_pattern(binding.template), set()).add(binding.verb)
        return {pattern: sorted(verbs) for pattern, verbs in sorted(found.items())}


def _methods(files: FileDescriptorSet) -> Iterator[Method]:
    messages = {f".{file.package}.{message.name}": message for file in files.file for message in file.message_type}
    for file in files.file:
        owner, _, rest = file.package.removeprefix("strongroom.").partition(".")
        if owner not in SERVICES or rest != "v1":
            continue
        for service in file.service:
            for method in service.method:
                if _for_users(method):
                    yield _method(owner, f"{file.package}.{service.name}", method, messages[method.input_type])


def _rules(method: MethodDescriptorProto) -> list[options_pb2.AccessRule]:
    options: Any = method.options
    return list(options.Extensions[options_pb2.access])


def _for_users(method: MethodDescriptorProto) -> bool:
    rules = _rules(method)
    return bool(rules) and not any(rule.services for rule in rules)


def _method(upstream: str, service: str, method: MethodDescriptorProto, request: DescriptorProto) -> Method:
    options: Any = method.options
    bindings = tuple(_bindings(options.Extensions[annotations_pb2.http]))
    return Method(
        upstream=upstream,
        service=service,
        name=method.name,
        public=any(rule.public for rule in _rules(method)),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        idempotent=bool(method.options.idempotency_level) or _reads(bindings),
        bindings=bindings,
        fields=frozenset(field.name for field in request.field),
    )


def _reads(bindings: tuple[Binding, ...]) -> bool:
    """Whether its verbs say so. PUT and DELETE do not here: of a second one, callers would hear that the version is
    another one than they expected, or that there is nothing to delete.
    """
    return bool(bindings) and all(binding.verb == "GET" for binding in bindings)  # RFC 9110, section 9.2.1


def _bindings(rule: http_pb2.HttpRule) -> Iterator[Binding]:
    verb = rule.WhichOneof("pattern")
    if verb == "custom":
        yield Binding(rule.custom.kind, rule.custom.path, rule.body)
    elif verb:
        yield Binding(verb.upper(), getattr(rule, verb), rule.body)
    for additional in rule.additional_bindings:
        yield from _bindings(additional)


def transcoder(service: str) -> str:
    """The name of the filter that makes gRPC of a service's REST requests."""
    return f"transcoder.{service}"


def lua_pattern(template: str) -> str:
    """`/a/{id}/b/{path=**}:verify` → `^/a/[^/]+/b/.+:verify$`, in the notation of Lua."""
    pattern = _pattern(template, lambda text: re.sub(r"([^0-9A-Za-z/_:])", r"%\1", text))
    return f"^{pattern}$"


def regex(template: str) -> str:
    """The same as a regular expression for the whole path."""
    return _pattern(template, re.escape)


def _pattern(template: str, escape: Callable[[str], str]) -> str:
    pattern = ""
    for part in re.split(r"(\{[^}]+\}|\*\*|\*)", template):
        if part.startswith("{"):
            pattern += _pattern(part[1:-1].partition("=")[2] or "*", escape)
        else:
            pattern += {"*": "[^/]+", "**": ".+"}.get(part) or escape(part)
    return pattern
