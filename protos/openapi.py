"""Writes the OpenAPI 3.1 document of every REST path, from the contract and its comments."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from described import Contract, Method, first_sentence
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from json_schemas import Schema, Schemas
from reasons import HTTP_STATUS, Reason

_PROBLEM = "application/problem+json"
_HTTP_BODY = ".google.api.HttpBody"
_NOTHING = ".google.protobuf.Empty"
_SCHEMES = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
    "Bearer": {"type": "http", "scheme": "bearer", "description": "An access token, or a fixed token."},
}
_CREDENTIALS: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]

# Headers by their names in lower case.
_HEADERS = {
    "x-access-code": "The access code of a protected version. Never in the URL.",
    "if-match": "The `etag` that was read: the change is made only if that is still it (RFC 9110, section 13.1.1).",
    "if-none-match": "`*`: the change is made only if nothing was there before (RFC 9110, section 13.1.2).",
    "etag": "What `If-Match` takes.",
    "offset": "Where the list goes on: send it as `offset`. Absent on the last page.",
    "next-page-token": "What `page_token` takes for the next page. Absent on the last page.",
    "content-length": "The exact length, known before the first byte: a transfer that breaks is seen as cut.",
    "content-disposition": "A name for the file.",
}
_CODE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bABORTED\b|\bUNAUTHENTICATED\b|\bUNAVAILABLE\b")
# Why a job failed, which stands in the job: no call fails for it.
_OF_JOBS = {"WORKER_KILLED", "WORKER_LOST", "FOLDER_FULL", "RUNNER_BROKEN"}
# What any operation may fail for, by HTTP status: 401 with a credential alone, 404 with a name in the path, 413 with a
# body.
_GENERAL = {
    400: ["REQUEST_MALFORMED", "MESSAGE_MALFORMED", "FIELD_INVALID", "INVALID_ARGUMENT"],
    401: ["CREDENTIAL_MISSING", "CREDENTIAL_INVALID"],
    403: ["PERMISSION_MISSING", "ORIGIN_NOT_ALLOWED"],
    404: ["NOT_FOUND", "PATH_UNKNOWN"],
    413: ["BODY_TOO_LARGE"],
    429: ["RATE_LIMITED", "QUOTA_EXHAUSTED", "TOO_MANY_CONCURRENT_CALLS"],
    500: ["INTERNAL"],
    503: ["UNAVAILABLE", "DEPENDENCY_UNAVAILABLE"],
}

_DESCRIPTION = """\
One place for a team's models, the secrets they need and the keys that open them.

**Credentials** go into a header, never into the URL: `X-API-Key: KEY`, or `Authorization: Bearer TOKEN` with an access
token. What an operation needs stands in its description.

**Bodies and answers** are JSON with the names of the fields below. Sizes and counts are numbers, exact up to
2^53. Messages and optional fields that are unset are left out. A name that the path shows with "several parts" is
written with its slashes: `/api/v1/secrets/prod/db`.

**Lists** come in pages: send `next_page_token` as `page_token` for the next one.

**Errors** are `application/problem+json` (RFC 9457). `reason` is for programs and never changes; `detail` is a sentence
for people; `request_id` finds the request in the logs. `Retry-After` says when another try is worth it. All reasons
stand at `x-reasons` in this document. Besides those of each operation any request may get 404 `PATH_UNKNOWN`, 405
`METHOD_NOT_ALLOWED`, 408 `REQUEST_TIMEOUT`, 431 `HEADERS_TOO_LARGE` and 400 `CREDENTIAL_IN_URL`.
"""


def document(
    contract: Contract, reasons: Mapping[str, Reason], examples: Mapping[str, Any], version: str
) -> dict[str, Any]:
    """The document as JSON.

    `examples` are by `Service.Method`: `request` and `answer`, of which either may be missing.
    """
    schemas = Schemas(contract)
    paths: dict[str, dict[str, Any]] = {}
    for method in contract.methods():
        if method.verb:
            operation = _operation(contract, schemas, reasons, method, examples.get(_example_name(method), {}))
            paths.setdefault(_path(method), {})[method.verb] = operation
    tags = [service for service in contract.services if any(method.verb for method in service.methods)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Strongroom",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": _CREDENTIALS,
        "tags": [{"name": service.name, "description": service.comment} for service in tags],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": _SCHEMES,
            "schemas": schemas.components() | {"Problem": _problem()},
            "responses": {
                str(status): _failure(status, [reasons[name] for name in names]) for status, names in _GENERAL.items()
            },
        },
        "x-reasons": {
            reason.name: {"status": reason.status, "code": reason.code, "says": reason.says}
            for reason in reasons.values()
        },
    }


def named_reasons(contract: Contract, method: Method, reasons: Mapping[str, Reason]) -> dict[int, list[str]]:
    """The reasons that comments name for a method, by HTTP status; of a code that they name alone, none.

    Raises LookupError for a word that looks like a reason and that no error has.
    """
    found: dict[int, list[str]] = {}
    for word in _CODE.findall(contract.said_of(method)):
        if word in HTTP_STATUS:
            found.setdefault(HTTP_STATUS[word], [])
        elif word in reasons:
            of_status = found.setdefault(reasons[word].status, [])
            of_status += [] if word in of_status else [word]
        elif word not in _OF_JOBS and not word.startswith("STRONGROOM_"):
            raise LookupError(f"A comment about {method.path} names {word}, which is no reason of any error.")
    return found


def _operation(
    contract: Contract, schemas: Schemas, reasons: Mapping[str, Reason], method: Method, example: Mapping[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": method.name,
        "tags": [method.service],
        "summary": first_sentence(method.comment),
        "description": f"{method.comment}\n\nNeeds: {method.needs()}.",
        "x-grpc-method": method.path,
    }
    if streams := _streams(method):
        operation["x-streaming"] = streams
    if method.public:
        operation["security"] = []
    if parameters := _parameters(contract, schemas, method):
        operation["parameters"] = parameters
    if method.body:
        operation["requestBody"] = _body(contract, schemas, method, example)
    operation["responses"] = {str(method.http_status): _success(schemas, method, example)}
    operation["responses"] |= _failures(contract, method, reasons)
    return operation


def _parameters(contract: Contract, schemas: Schemas, method: Method) -> list[Schema]:
    message = contract.messages[method.proto.input_type]
    found = []
    for field in message.field:
        if field.name in method.path_fields:
            several = f"{{{field.name}=**}}" in method.template
            schema = schemas.field(method.proto.input_type, field, answer=False)
            text = schema.pop("description", "") + (" Several parts, with slashes between them." if several else "")
            # What a path can't leave empty.
            shortest = {"minLength": 1} if schema.get("type") == "string" and "enum" not in schema else {}
            found.append(_parameter("path", field.name, text.strip(), {**shortest, **schema}, required=True))
        elif method.body != "*" and field.name != method.body and _fits_query(field):
            schema = schemas.field(method.proto.input_type, field, answer=False)
            text = schema.pop("description", "")
            found.append(_parameter("query", field.name, text, schema, required=schemas.required(field)))
    headers = [_parameter("header", name, _HEADERS[name], {"type": "string"}) for name in method.rest.headers]
    return [*found, *headers]


def _parameter(place: str, name: str, text: str, schema: Schema, *, required: bool = False) -> Schema:
    return {
        "name": name,
        "in": place,
        **({"required": True} if required else {}),
        **({"description": text} if text else {}),
        "schema": schema,
    }


def _fits_query(field: FieldDescriptorProto) -> bool:
    """Whether the transcoder can read the field from a query: it takes texts, numbers, times and lists of them."""
    return field.type != field.TYPE_MESSAGE or field.type_name == ".google.protobuf.Timestamp"


def _body(contract: Contract, schemas: Schemas, method: Method, example: Mapping[str, Any]) -> dict[str, Any]:
    message = contract.messages[method.proto.input_type]
    field = next((field for field in message.field if field.name == method.body), None)
    if field is None:
        schema = schemas.request(method.proto.input_type, without=method.path_fields)
        content = {"application/json": _with_example(schema, example.get("request"))}
    elif field.type_name == _HTTP_BODY:
        content = {kind: {"schema": _raw(kind)} for kind in method.rest.consumes}
    else:
        schema = schemas.field(method.proto.input_type, field, answer=False)
        content = {"application/json": _with_example(schema, example.get("request"))}
    return {"required": True, "content": content}


def _raw(media_type: str) -> Schema:
    if media_type != "multipart/form-data":
        return {}  # any bytes (OpenAPI 3.1, section 4.8.14.2)
    part = {"type": "string", "contentMediaType": "application/octet-stream"}
    return {"type": "object", "properties": {"model_file": part}, "required": ["model_file"]}


def _success(schemas: Schemas, method: Method, example: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": HTTPStatus(method.http_status).phrase}
    if headers := method.rest.answer_headers:
        answer["headers"] = {name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in headers}
    if method.proto.output_type == _HTTP_BODY:
        kinds = method.rest.produces or ["application/octet-stream"]
        answer["content"] = {kind: {} for kind in kinds}
    elif method.proto.output_type != _NOTHING:
        schema = schemas.answer(method.proto.output_type)
        if method.proto.server_streaming:
            schema = {"type": "array", "items": schema}
        answer["content"] = {"application/json": _with_example(schema, example.get("answer"))}
    return answer


def _failures(contract: Contract, method: Method, reasons: Mapping[str, Reason]) -> dict[str, Any]:
    named = named_reasons(contract, method, reasons)
    if "if-match" in method.rest.headers:
        named.setdefault(412, ["ETAG_MISMATCH"])
    if "x-access-code" in method.rest.headers:
        named[400] = [*named.get(400, []), "ACCESS_CODE_INVALID"]
    if any(field.name == "page_token" for field in contract.messages[method.proto.input_type].field):
        named[400] = [*named.get(400, []), "PAGE_TOKEN_INVALID"]
    unlikely = {401: method.public, 404: not method.path_fields, 413: not method.body}
    general = {status for status in _GENERAL if not unlikely.get(status)}
    failures: dict[str, Any] = {}
    for status in sorted(general | named.keys()):
        if named.get(status) or status not in _GENERAL:
            names = dict.fromkeys([*named[status], *(_GENERAL[status] if status in general else ())])
            failures[str(status)] = _failure(status, [reasons[name] for name in names])
        else:
            failures[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return failures


def _failure(status: int, reasons: list[Reason]) -> dict[str, Any]:
    lines = [f"- `{reason.name}`: {' '.join(reason.says.split()) or HTTPStatus(status).phrase}" for reason in reasons]
    return {
        "description": "\n".join([HTTPStatus(status).phrase, *([""] if lines else []), *lines]),
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "x-reasons": [reason.name for reason in reasons],
    }


def _with_example(schema: Schema, example: Any) -> dict[str, Any]:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _problem() -> Schema:
    texts = {
        "type": "`urn:strongroom:error:` and the reason, in lower case.",
        "title": "What the status means.",
        "detail": "What went wrong and what to do.",
        "instance": "The path of the request.",
        "reason": "For programs; never changes. All of them stand at `x-reasons`.",
        "request_id": "Finds the request in the logs.",
    }
    properties: Schema = {name: {"type": "string", "description": text} for name, text in texts.items()}
    properties |= {name: {"type": "integer", "description": "The HTTP status."} for name in ("status", "status_code")}
    details = {"type": "array", "items": {"type": "object"}, "description": "google.rpc's error details, if any."}
    properties["details"] = details
    return {
        "type": "object",
        "description": "A failure (RFC 9457).",
        "properties": properties,
        "required": ["type", "title", "status", "detail", "instance", "status_code", "reason", "request_id"],
    }


def _streams(method: Method) -> str:
    kinds = {"request": method.proto.client_streaming, "answer": method.proto.server_streaming}
    return " and ".join(kind for kind, streams in kinds.items() if streams)


def _path(method: Method) -> str:
    return re.sub(r"=[^}]*\}", "}", method.template)


def _example_name(method: Method) -> str:
    return f"{method.service}.{method.name}"
