"""The OpenAPI document says all that the protos say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import descriptor_pool, json_format, message_factory
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.shared import validation
from strongroom.local import gateway
from strongroom.local.contract import Contract, Method
from strongroom.options.v1 import options_pb2
from tests.page_assets import PAGES
from tests.test_protos import METHODS

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENT: dict[str, Any] = json.loads((PAGES / "openapi.json").read_text())
CONTRACT = Contract.load(gateway.DESCRIPTOR_SET)
EXAMPLES: dict[str, Any] = yaml.safe_load((REPOSITORY / "protos" / "examples.yaml").read_text())
OPERATIONS = {
    (verb.upper(), path): operation for path, item in DOCUMENT["paths"].items() for verb, operation in item.items()
}


def _bound() -> dict[tuple[str, str], Method]:
    return {
        (binding.verb, re.sub(r"=[^}]*}", "}", binding.template)): method
        for method in CONTRACT.methods
        for binding in method.bindings
    }


def test_the_document_is_valid() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_has_every_rest_path_and_no_other() -> None:
    assert OPERATIONS.keys() == _bound().keys()
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))


@pytest.mark.row("S1.6")
def test_it_says_where_a_credential_is_needed() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert schemes["ApiKey"] | {"description": ""} == {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "",
    }
    assert schemes["Bearer"]["scheme"] == "bearer"
    for place, method in _bound().items():
        assert (OPERATIONS[place].get("security") == []) == method.public, place
        assert method.public or "401" in OPERATIONS[place]["responses"]


def test_it_marks_streams_and_bodies_that_are_no_json() -> None:
    put = OPERATIONS["PUT", "/api/v1/managers/{manager_id}/models/{model_name}/versions/{version}/files/{path}"]
    assert put["x-streaming"] == "request"
    assert list(put["requestBody"]["content"]) == ["application/octet-stream"]
    upload = OPERATIONS["POST", "/api/managers/{manager_id}/upload-model"]
    assert "multipart/form-data" in upload["requestBody"]["content"]
    for place, method in _bound().items():
        assert bool(OPERATIONS[place].get("x-streaming")) == method.streaming


def test_every_operation_says_what_it_does_and_every_failure_why() -> None:
    for place, operation in OPERATIONS.items():
        assert operation["summary"], place
        assert "Needs: " in operation["description"]
        for status, response in operation["responses"].items():
            if int(status) >= 400 and "$ref" not in response:
                assert "application/problem+json" in response["content"]
                for reason in response["x-reasons"]:
                    assert DOCUMENT["x-reasons"][reason]["status"] == int(status)


def test_a_method_that_reads_headers_says_so() -> None:
    for method in METHODS:
        rest = method.GetOptions().Extensions[options_pb2.rest]
        operations = [operation for operation in OPERATIONS.values() if operation["operationId"] == method.name]
        for operation in operations:
            named = {item["name"] for item in operation.get("parameters", []) if item["in"] == "header"}
            assert named == set(rest.headers)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_examples_are_messages_of_their_methods(name: str) -> None:
    service, _, method_name = name.partition(".")
    method = next(found for found in METHODS if found.name == method_name and found.containing_service.name == service)
    for kind, descriptor in (("request", method.input_type), ("answer", method.output_type)):
        if kind in EXAMPLES[name]:
            message = message_factory.GetMessageClass(
                descriptor_pool.Default().FindMessageTypeByName(descriptor.full_name)
            )()
            json_format.ParseDict(EXAMPLES[name][kind], message)
            if kind == "request":
                # Names that stand in the path are no part of the example.
                for field in _path_fields(method_name):
                    setattr(message, field, "a")
                validation.check(message)


def _path_fields(name: str) -> set[str]:
    return {
        field
        for method in CONTRACT.methods
        if method.name == name
        for binding in method.bindings
        for field in binding.path_fields
    }
