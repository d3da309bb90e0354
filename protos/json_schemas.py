"""JSON Schema (2020-12, as OpenAPI 3.1 has it) of messages, as the gateway writes and reads them.

Of an answer it holds that every field without presence is there, so those are required. Of a request the rules of
`buf.validate` hold, and required is what they do not let be empty.
"""

import importlib
import math
import re
from collections.abc import Iterable
from typing import Any

from described import Contract
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

Schema = dict[str, Any]

_REPEATED = FieldDescriptorProto.LABEL_REPEATED
_KINDS = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_INTEGERS: dict[str, tuple[int, int]] = {"int32": (-(2**31), 2**31 - 1), "uint32": (0, 2**32 - 1)}
_LONG = {"int64": "^-?[0-9]{1,19}$", "uint64": "^[0-9]{1,20}$"}
_WELL_KNOWN: dict[str, Schema] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    ".google.protobuf.Struct": {"type": "object", "additionalProperties": True},
    ".google.protobuf.ListValue": {"type": "array", "items": {}},
    ".google.protobuf.Value": {},
}
_BOUNDS = {"gte": "minimum", "lte": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}


class Schemas:
    """Collects the schemas that operations refer to.

    A message in requests and in answers has two: that of requests is then named `…Input`.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._rules: Any = importlib.import_module("strongroom.buf.validate.validate_pb2")
        self._input: dict[str, Schema] = {}
        self._output: dict[str, Schema] = {}
        self._in_answers = contract.reached(method.proto.output_type for method in contract.methods() if method.verb)
        short = [name.split(".v1.")[1] for name in contract.messages if name.startswith(".strongroom.")]
        self._ambiguous = {name for name in short if short.count(name) > 1}

    def components(self) -> dict[str, Schema]:
        """All that were referred to, by name."""
        named = {self._name(full): schema for full, schema in self._output.items()}
        named |= {self._input_name(full): schema for full, schema in self._input.items()}
        return dict(sorted(named.items()))

    def answer(self, message: str) -> Schema:
        """Of a message that the gateway writes."""
        return self._message(message, answer=True, without=())

    def request(self, message: str, without: Iterable[str] = ()) -> Schema:
        """Of a message that is a JSON body, without the fields that stand elsewhere."""
        return self._message(message, answer=False, without=tuple(without))

    def field(self, message: str, field: FieldDescriptorProto, *, answer: bool) -> Schema:
        """Of one field with its comment."""
        schema = self._of_field(field, answer)
        comment = self._contract.comments.get(f"{message}.{field.name}", "")
        return {"description": comment, **schema} if comment else schema

    def required(self, field: FieldDescriptorProto) -> bool:
        """Whether a request without the field is refused."""
        rules = self._constraints(field)
        if rules.required:
            return True
        if field.proto3_optional or field.HasField("oneof_index"):
            return False
        kind = rules.WhichOneof("type")
        return bool(kind) and _refuses_zero(kind, getattr(rules, kind))

    def _message(self, name: str, *, answer: bool, without: tuple[str, ...]) -> Schema:
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        kept = self._output if answer else self._input
        if name not in kept:
            kept[name] = {}  # a message may contain itself
            kept[name].update(self._object(name, self._contract.messages[name], answer, without))
        return {"$ref": f"#/components/schemas/{self._name(name) if answer else self._input_name(name)}"}

    def _object(self, name: str, message: DescriptorProto, answer: bool, without: tuple[str, ...]) -> Schema:
        fields = [field for field in message.field if field.name not in without]
        schema: Schema = {"type": "object"}
        if comment := self._contract.comments[name]:
            schema["description"] = comment
        schema["properties"] = {field.name: self.field(name, field, answer=answer) for field in fields}
        required = [field.name for field in fields if (self._always(field) if answer else self.required(field))]
        return schema | ({"required": required} if required else {})

    def _always(self, field: FieldDescriptorProto) -> bool:
        """Whether an answer always has the field: messages and `optional` fields are left out while unset."""
        single = field.label != _REPEATED
        return not (single and (field.type == field.TYPE_MESSAGE or field.HasField("oneof_index")))

    def _of_field(self, field: FieldDescriptorProto, answer: bool) -> Schema:
        rules = self._constraints(field)
        if entry := self._contract.map_entry(field):
            values = self._single(entry.field[1], rules.map.values, answer)
            limit = {"maxProperties": rules.map.max_pairs} if rules.map.HasField("max_pairs") and not answer else {}
            return {"type": "object", "additionalProperties": values, **limit}
        if field.label != _REPEATED:
            return self._single(field, rules, answer)
        schema: Schema = {"type": "array", "items": self._single(field, rules.repeated.items, answer)}
        if not answer:
            for rule, keyword in (("min_items", "minItems"), ("max_items", "maxItems"), ("unique", "uniqueItems")):
                if rules.repeated.HasField(rule):
                    schema[keyword] = getattr(rules.repeated, rule)
        return schema

    def _single(self, field: FieldDescriptorProto, rules: Any, answer: bool) -> Schema:
        kind = _KINDS[field.type]
        if kind == "message":
            return self._message(field.type_name, answer=answer, without=())
        of_kind = getattr(rules, kind)
        if kind in _LONG and answer:
            return {"type": "string", "format": kind, "pattern": _LONG[kind]}  # JavaScript's numbers end at 2^53
        if kind in (*_INTEGERS, *_LONG):
            limits = dict(zip(("minimum", "maximum"), _INTEGERS.get(kind, ()), strict=False))
            limits = limits or ({"minimum": 0} if kind == "uint64" else {})
            return {"type": "integer", "format": kind, **limits, **({} if answer else _bounds(of_kind))}
        if kind in ("double", "float"):
            return {"type": "number", "format": kind, **({} if answer else _bounds(of_kind))}
        if kind == "bytes":
            most = {"maxLength": 4 * math.ceil(of_kind.max_len / 3)} if of_kind.HasField("max_len") else {}
            return {"type": "string", "contentEncoding": "base64", **({} if answer else most)}
        return {"type": "boolean"} if kind == "bool" else {"type": "string", **({} if answer else _text(of_kind))}

    def _constraints(self, field: FieldDescriptorProto) -> Any:
        options: Any = field.options
        return options.Extensions[self._rules.field]

    def _name(self, full: str) -> str:
        package, _, short = full.removeprefix(".strongroom.").partition(".v1.")
        return f"{package.capitalize()}{short}" if short in self._ambiguous else short

    def _input_name(self, full: str) -> str:
        return self._name(full) + ("Input" if full in self._in_answers else "")


def _text(rules: Any) -> Schema:
    schema: Schema = {}
    for rule, keyword in (("min_len", "minLength"), ("max_len", "maxLength"), ("max_bytes", "maxLength")):
        if rules.HasField(rule):
            schema[keyword] = getattr(rules, rule)
    if rules.HasField("len"):
        schema |= {"minLength": rules.len, "maxLength": rules.len}
    if rules.HasField("pattern"):
        schema["pattern"] = rules.pattern
    if getattr(rules, "in"):
        schema["enum"] = list(getattr(rules, "in"))
    return schema


def _bounds(rules: Any) -> Schema:
    return {keyword: getattr(rules, rule) for rule, keyword in _BOUNDS.items() if rules.HasField(rule)}


def _refuses_zero(kind: str, rules: Any) -> bool:
    """Whether the rules refuse what an absent field is: an empty text, 0, an empty list."""
    if kind == "string":
        pattern = rules.HasField("pattern") and not re.search(rules.pattern, "")
        shortest = rules.min_len if rules.HasField("min_len") else rules.len
        return bool(pattern or shortest or (getattr(rules, "in") and "" not in getattr(rules, "in")))
    if kind in ("bytes", "repeated", "map"):
        least = {"bytes": "min_len", "repeated": "min_items", "map": "min_pairs"}[kind]
        return bool(getattr(rules, least) or (kind == "bytes" and rules.len))
    return any(rules.HasField(rule) for rule in ("gte", "gt")) and (rules.gte > 0 or rules.HasField("gt"))
