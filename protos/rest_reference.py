"""Writes the list of REST paths from the protos' bindings, access rules and comments."""

import importlib
import re

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

# Numbers of the fields in FileDescriptorProto and ServiceDescriptorProto by which source positions are addressed.
_SERVICE, _METHOD = 6, 2

_HEADER = """# REST paths

Made from `protos/` by `make proto`; the comments there are the manual, with every field, bound and error. Bodies and
answers are JSON with the names of the proto's fields. A `:verb` belongs to the last part of a path; `{name=**}` takes
several parts. HEAD is answered 405, a percent-encoded dollar sign (`%24`) 404.

The credential goes into a header, never into the URL: `X-API-Key: KEY` or `Authorization: Bearer TOKEN`. Errors are
`application/problem+json` with `type`, `title`, `status`, `detail`, `instance`, `status_code`, `reason`, `request_id`.
"""


def render(image: bytes) -> str:
    """The page, from a FileDescriptorSet with source info."""
    access = importlib.import_module("strongroom.options.v1.options_pb2").access
    parts = [_HEADER]
    for file in descriptor_pb2.FileDescriptorSet.FromString(image).file:
        comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
        for number, service in enumerate(file.service):
            rows = []
            for index, method in enumerate(service.method):
                http = method.options.Extensions[annotations_pb2.http]
                verb = http.WhichOneof("pattern")
                if verb is None:
                    continue
                path = f"`{verb.upper()} {getattr(http, verb)}`"
                needs = _needs(method.options.Extensions[access])
                comment = comments.get((_SERVICE, number, _METHOD, index), "")
                rows.append(f"| {path} | {needs} | {_first_sentence(comment)} | {method.name} |")
            if rows:
                heading = f"\n## {file.package}.{service.name}\n\n{_first_sentence(comments[_SERVICE, number])}\n"
                parts += [heading, "| path | needs | what it does | method |", "|---|---|---|---|", *rows]
    return "\n".join(parts) + "\n"


def _needs(rules: object) -> str:
    needs = []
    for rule in rules:  # type: ignore[attr-defined]
        if rule.public:
            needs.append("nothing")
        elif rule.permission:
            where = f" on `{rule.resource}`" if rule.resource else ", filtered"
            needs.append(f"`{rule.permission}`{where}" + (f" if `{rule.when}` is set" if rule.when else ""))
        else:
            needs.append("a credential")
    return ", ".join(needs)


def _first_sentence(comment: str) -> str:
    text = " ".join(line.strip() for line in comment.strip().splitlines() if not line.strip().startswith("buf:lint"))
    return re.split(r"(?<=[.:]) (?=[A-Z`])", text)[0].rstrip(":")
