"""Writes the reference of gRPC methods and messages from the protos' comments."""

from described import Contract, Method
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

_HEADER = """# gRPC reference

Made from `protos/` by `make proto`. Everything is served at one address, that of the gateway; a credential goes into
the metadata `x-api-key`, or `authorization` as `Bearer TOKEN`. Failures carry a `google.rpc.ErrorInfo` with one of the
[reasons](errors.md). The gateway answers reflection: `grpcurl -plaintext HOST:PORT list`.
"""
_KINDS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}


def render(contract: Contract) -> str:
    """The page: services that callers may use, each with its methods, and the messages of its package."""
    parts = [_HEADER]
    packages: dict[str, set[str]] = {}
    for service in contract.services:
        methods = [method for method in service.methods if not any(rule.services for rule in method.rules)]
        if not methods or not service.package.startswith(
            ("strongroom.auth", "strongroom.models", "strongroom.secrets")
        ):
            continue
        parts.append(f"\n## {service.full_name}\n\n{service.comment}\n")
        for method in methods:
            parts += _method(method)
        types = [name for method in methods for name in (method.proto.input_type, method.proto.output_type)]
        packages.setdefault(service.package, set()).update(types)
    reached = contract.reached(name for names in packages.values() for name in names)
    parts.append("\n## Messages\n")
    for name in contract.messages:
        if name in reached and name.startswith(".strongroom.") and not contract.messages[name].options.map_entry:
            parts += _message(contract, name, contract.messages[name])
    return "\n".join(parts).rstrip() + "\n"


def _method(method: Method) -> list[str]:
    request = f"{'stream ' if method.proto.client_streaming else ''}{_short(method.proto.input_type)}"
    answer = f"{'stream ' if method.proto.server_streaming else ''}{_short(method.proto.output_type)}"
    rest = f"REST: `{method.verb.upper()} {method.template}`." if method.verb else f"No REST: {method.no_http}."
    return [f"### {method.name}\n", f"`{request}` → `{answer}`\n\n{method.comment}\n\nNeeds {method.needs()}. {rest}\n"]


def _message(contract: Contract, name: str, message: DescriptorProto) -> list[str]:
    parts = [f"### {_short(name)}\n"]
    if comment := contract.comments[name]:
        parts.append(f"{comment}\n")
    if message.field:
        rows = [
            f"| {field.number} | `{field.name}` | {_type(contract, field)} "
            f"| {_cell(contract.comments.get(f'{name}.{field.name}', ''))} |"
            for field in message.field
        ]
        parts.append("\n".join(["| | field | type | |", "|---|---|---|---|", *rows]) + "\n")
    return parts


def _type(contract: Contract, field: FieldDescriptorProto) -> str:
    if entry := contract.map_entry(field):
        return f"map of {_type(contract, entry.field[0])} to {_type(contract, entry.field[1])}"
    kind = _short(field.type_name) if field.type_name else _KINDS[field.type]
    if field.label == field.LABEL_REPEATED:
        return f"repeated {kind}"
    return f"optional {kind}" if field.proto3_optional else kind


def _cell(comment: str) -> str:
    return " ".join(comment.split()).replace("|", "\\|")


def _short(name: str) -> str:
    return name.removeprefix(".").removeprefix("strongroom.")
