"""Secrets through the gateway, over REST and over gRPC alike (S4.1)."""

import itertools
import uuid
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from strongroom.secrets.v1 import secrets_pb2 as pb
from strongroom.secrets.v1 import secrets_pb2_grpc
from tests.callers import Caller, administrator
from tests.stack import Stack

_STUB = secrets_pb2_grpc.SecretServiceStub


@pytest.fixture
def admin(stack: Stack) -> Caller:
    return administrator(stack)


@pytest.fixture
def folder() -> str:
    return f"gateway-{uuid.uuid4().hex}"


class Rest:
    """SecretService by its paths."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, verb: str, path: str, body: Any = None, status: int = 200) -> Any:
        answered, answer = self._caller.rest(verb, f"/api/v1/secrets{path}", body)
        assert answered == status, answer
        return answer


class Grpc:
    """The same paths, as calls of the methods they stand for."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __call__(self, verb: str, path: str, body: Any = None, status: int = 200) -> Any:
        path, _, query = path.partition("?")
        name, _, action = path.removeprefix("/").partition(":")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        fields: dict[str, Any] = dict(body or {}) | ({"name": name} if name else {})
        for key, values in itertools.groupby(pairs, key=lambda pair: pair[0]):
            given = [value.replace("%3D", "=") for _, _, value in values]
            fields[key] = given if key in ("versions", "label") else given[0]
        method = _METHODS[verb, action, bool(name)]
        request = json_format.ParseDict(_typed(fields), getattr(pb, f"{method}Request")())
        if status >= 400:
            assert self._caller.code(_STUB, method, request) == {404: "NOT_FOUND", 400: "FAILED_PRECONDITION"}[status]
            return None
        answer = self._caller.grpc(_STUB, method, request)
        return json_format.MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


_METHODS = {
    ("POST", "", False): "CreateSecret",
    ("PUT", "", True): "UpdateSecret",
    ("GET", "", True): "GetSecret",
    ("GET", "", False): "ListSecrets",
    ("GET", "history", True): "ListSecretVersions",
    ("DELETE", "", True): "DeleteSecret",
    **{
        ("POST", action, True): f"{action.capitalize()}Secret{'Version' * (action in ('stage', 'promote', 'discard'))}"
        for action in ("stage", "promote", "discard", "edit", "undelete", "destroy")
    },
}


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    as_json = {"true": True, "false": False}
    return {key: as_json.get(value, value) if isinstance(value, str) else value for key, value in fields.items()}


@pytest.fixture(params=[Rest, Grpc])
def ask(request: pytest.FixtureRequest, admin: Caller) -> Rest | Grpc:
    chosen: type[Rest | Grpc] = request.param
    return chosen(admin)


@pytest.mark.row("S4.1")
def test_a_secret_from_its_first_version_to_its_destruction(ask: Rest | Grpc, folder: str) -> None:
    name = f"{folder}/db"
    data = {"user": "scorer", "port": 5432, "tls": True, "key": {"$base64": "AAH/"}, "hosts": ["a", {"b": None}]}
    made = ask("POST", "", {"name": name, "data": data, "labels": {"team": "fraud"}}, 201 if type(ask) is Rest else 200)
    assert (made["version"], made["stage"]) == (1, "current")
    assert ask("GET", f"/{name}")["data"] == data
    assert ask("PUT", f"/{name}", {"data": {"n": "two"}, "expected_version": 1})["version"] == 2
    assert ask("GET", f"/{name}?version=1")["data"] == data
    assert [version["version"] for version in ask("GET", f"/{name}:history")["versions"]] == [2, 1]
    assert ask("DELETE", f"/{name}") == {"name": name}
    ask("GET", f"/{name}", status=404)
    assert ask("POST", f"/{name}:undelete", {})["labels"] == {"team": "fraud"}
    ask("DELETE", f"/{name}?versions=1")
    ask("GET", f"/{name}?version=1", status=404)
    ask("POST", f"/{name}:undelete", {"versions": [1]})
    assert ask("POST", f"/{name}:destroy", {"versions": [1]}) == {"name": name, "destroyed_versions": 1}
    ask("GET", f"/{name}?version=1", status=404)
    assert ask("GET", f"/{name}")["data"] == {"n": "two"}
    assert ask("POST", f"/{name}:destroy", {}) == {"name": name, "destroyed_versions": 1}
    ask("GET", f"/{name}:history", status=404)


@pytest.mark.row("S4.1")
@pytest.mark.row("S4.3")
def test_a_version_is_staged_promoted_and_discarded(ask: Rest | Grpc, folder: str) -> None:
    name = f"{folder}/staged"
    ask("PUT", f"/{name}", {"data": {"n": "one"}, "allow_missing": True})
    assert ask("POST", f"/{name}:stage", {"data": {"n": "two"}})["stage"] == "pending"
    assert ask("GET", f"/{name}")["data"] == {"n": "one"}
    assert ask("GET", f"/{name}?stage=pending")["data"] == {"n": "two"}
    assert ask("POST", f"/{name}:promote", {"version": 2})["stage"] == "current"
    assert ask("GET", f"/{name}?stage=previous")["data"] == {"n": "one"}
    ask("POST", f"/{name}:stage", {"data": {"n": "three"}})
    ask("POST", f"/{name}:discard", {"version": 3})
    ask("POST", f"/{name}:promote", {"version": 3}, status=400)
    assert ask("GET", f"/{name}")["data"] == {"n": "two"}


@pytest.mark.row("S4.1")
def test_secrets_are_listed_by_folder_and_found_by_words_and_labels(ask: Rest | Grpc, folder: str) -> None:
    for name, tier in (("app/db", "one"), ("app/deep/key", "two"), ("top", "one")):
        ask("PUT", f"/{folder}/{name}", {"data": {}, "allow_missing": True, "labels": {"tier": tier}})

    def names(query: str) -> list[str]:
        return [secret["name"].removeprefix(f"{folder}/") for secret in ask("GET", f"?{query}")["secrets"]]

    assert names(f"prefix={folder}/") == ["app/db", "app/deep/key", "top"]
    assert names(f"query={folder}&label=tier%3Done") == ["app/db", "top"]
    assert names(f"query={folder}&label=tier%3Done&label=none") == []
    page = ask("GET", f"?prefix={folder}/&by_folder=true")
    assert (page["folders"], [secret["name"] for secret in page["secrets"]]) == ([f"{folder}/app/"], [f"{folder}/top"])
    edited = ask("POST", f"/{folder}/top:edit", {"set_labels": {"tier": "three"}, "expires_at": "2099-01-01T00:00:00Z"})
    assert (edited["labels"], edited["expires_at"]) == ({"tier": "three"}, "2099-01-01T00:00:00Z")


@pytest.mark.row("S3.6")
def test_secrets_that_are_in_use_for_long_are_found(ask: Rest | Grpc, folder: str) -> None:
    ask("PUT", f"/{folder}/token", {"data": {}, "allow_missing": True})
    ask("POST", f"/{folder}/token:stage", {"data": {}})
    ask("PUT", f"/{folder}/other", {"data": {}, "allow_missing": True})
    written = ask("GET", f"/{folder}/other")["created_at"]

    def names(moment: str) -> list[str]:
        found = ask("GET", f"?prefix={folder}/&written_before={moment}")["secrets"]
        return [secret["name"].removeprefix(f"{folder}/") for secret in found]

    assert names("2020-01-01T00:00:00Z") == []
    assert names(written) == ["token"]
    assert names("2099-01-01T00:00:00Z") == ["other", "token"]


def test_a_listing_shows_only_what_the_caller_may_list(admin: Caller, folder: str) -> None:
    for name in ("mine/a", "theirs/b"):
        admin.rest("PUT", f"/api/v1/secrets/{folder}/{name}", {"data": {}, "allow_missing": True})
    wish = {"name": folder, "permissions": ["secrets.list"], "scopes": [f"secrets/{folder}/mine/**"]}
    _, key = admin.rest("POST", "/api-keys", wish)
    reader = Caller(admin.stack, key["key"])
    for query in (f"prefix={folder}/", f"query={folder}"):
        _, page = reader.rest("GET", f"/api/v1/secrets?{query}")
        assert [secret["name"] for secret in page["secrets"]] == [f"{folder}/mine/a"]
    _, page = reader.rest("GET", f"/api/v1/secrets?prefix={folder}/&by_folder=true")
    assert (page["folders"], page["secrets"]) == ([f"{folder}/mine/"], [])
    request = pb.UpdateSecretRequest(name=f"{folder}/mine/a", data=struct_pb2.Struct())
    assert reader.code(_STUB, "UpdateSecret", request) == "PERMISSION_DENIED"
