"""The contract with its comments: what every reference is made of."""

import importlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

# Numbers of the fields in FileDescriptorProto, DescriptorProto and ServiceDescriptorProto by which source positions are
# addressed (google/protobuf/descriptor.proto, SourceCodeInfo.Location.path).
_MESSAGES, _SERVICES, _FIELDS, _NESTED, _METHODS = 4, 6, 2, 3, 2

_PATH_FIELD = re.compile(r"\{([a-z0-9_.]+)(?:=[^}]*)?\}")


@dataclass(frozen=True)
class Method:
    """A method, what its comment says, and how REST reaches it."""

    package: str
    service: str
    proto: MethodDescriptorProto
    comment: str
    # What the service says of all of its methods.
    of_service: str

    @property
    def name(self) -> str:
        return str(self.proto.name)

    @property
    def path(self) -> str:
        return f"/{self.package}.{self.service}/{self.name}"

    @property
    def options(self) -> Any:
        """The extensions, as `options.Extensions[…]` has them."""
        return self.proto.options

    @property
    def rules(self) -> list[Any]:
        """Who may call it: AccessRule messages."""
        return list(self.options.Extensions[_options().access])

    @property
    def public(self) -> bool:
        return any(rule.public for rule in self.rules)

    @property
    def rest(self) -> Any:
        """What `google.api.http` cannot say: a Rest message."""
        return self.options.Extensions[_options().rest]

    @property
    def http_status(self) -> int:
        """The HTTP status of success."""
        return self.options.Extensions[_options().http_status] or 200

    @property
    def no_http(self) -> str:
        """Why there is no HTTP binding; empty if there is one."""
        return str(self.options.Extensions[_options().no_http])

    @property
    def verb(self) -> str:
        """In lower case; empty without a binding."""
        return self._http.WhichOneof("pattern") or ""

    @property
    def template(self) -> str:
        """As in the proto: `/api/v1/secrets/{name=**}`."""
        return getattr(self._http, self.verb) if self.verb else ""

    @property
    def body(self) -> str:
        """The field that the body is; `*` for all that no path names, empty for none."""
        return str(self._http.body)

    @property
    def path_fields(self) -> list[str]:
        return _PATH_FIELD.findall(self.template)

    @property
    def _http(self) -> Any:
        return self.options.Extensions[annotations_pb2.http]

    def needs(self) -> str:
        """What a caller needs, in Markdown."""
        return ", ".join(_need(rule) for rule in self.rules)


@dataclass(frozen=True)
class Service:
    package: str
    proto: ServiceDescriptorProto
    comment: str
    methods: tuple[Method, ...]

    @property
    def name(self) -> str:
        return str(self.proto.name)

    @property
    def full_name(self) -> str:
        return f"{self.package}.{self.name}"


class Contract:
    """Services, messages and comments of a FileDescriptorSet with source info.

    Names of messages are full, with a dot in front, as descriptors write them; of fields `.package.Message.field`.
    """

    def __init__(self, image: bytes) -> None:
        self.services: list[Service] = []
        self.messages: dict[str, DescriptorProto] = {}
        self.comments: dict[str, str] = {}
        importlib.import_module("strongroom.buf.validate.validate_pb2")
        _options()
        for file in FileDescriptorSet.FromString(image).file:
            said = {tuple(place.path): _text(place) for place in file.source_code_info.location}
            for index, message in enumerate(file.message_type):
                self._add(message, f".{file.package}", (_MESSAGES, index), said)
            for index, service in enumerate(file.service):
                place = (_SERVICES, index)
                comment = said.get(place, "")
                methods = tuple(
                    Method(file.package, service.name, method, said.get((*place, _METHODS, number), ""), comment)
                    for number, method in enumerate(service.method)
                )
                self.services.append(Service(file.package, service, comment, methods))

    def methods(self) -> Iterator[Method]:
        for service in self.services:
            yield from service.methods

    def _add(self, message: DescriptorProto, scope: str, place: tuple[int, ...], said: dict[Any, str]) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self.comments[name] = said.get(place, "")
        for number, field in enumerate(message.field):
            self.comments[f"{name}.{field.name}"] = said.get((*place, _FIELDS, number), "")
        for number, nested in enumerate(message.nested_type):
            self._add(nested, name, (*place, _NESTED, number), said)

    def said_of(self, method: Method) -> str:
        """The comments that are about a method: its own, its service's, those of what it is asked with."""
        asked_with = self.reached([method.proto.input_type])
        asked = [name for name in self.comments if {name, name.rpartition(".")[0]} & asked_with]
        return "\n".join([method.comment, method.of_service, *(self.comments[name] for name in sorted(asked))])

    def reached(self, names: Iterable[str]) -> set[str]:
        """The named messages and all that their fields lead to."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                message = self.messages.get(name)
                waiting += [field.type_name for field in message.field if field.type_name] if message else []
        return found

    def map_entry(self, field: FieldDescriptorProto) -> DescriptorProto | None:
        """The entry message of a map, whose two fields are key and value; None for any other field."""
        entry = self.messages.get(field.type_name)
        return entry if entry is not None and entry.options.map_entry else None


def first_sentence(comment: str) -> str:
    return re.split(r"(?<=[.:])\s+(?=[A-Z`])", comment.replace("\n", " "))[0].rstrip(":")


def _need(rule: Any) -> str:
    if rule.public:
        return "nothing"
    if rule.services:
        return "the identity of " + " or ".join(rule.services)
    if not rule.permission:
        return "a credential"
    where = f" on `{rule.resource}`" if rule.resource else ", filtered"
    return f"`{rule.permission}`{where}" + (f" if `{rule.when}` is set" if rule.when else "")


def _text(place: Any) -> str:
    """The comment as prose: a line is a line of Markdown, and what it says to the linter is left out."""
    lines = [line.strip() for line in place.leading_comments.splitlines()]
    return "\n".join(line for line in lines if not line.startswith("buf:lint")).strip()


def _options() -> Any:
    return importlib.import_module("strongroom.options.v1.options_pb2")
