"""The Artifacts API through the gateway, over REST and over gRPC."""

import json
import time
from typing import Any

import pytest

from strongroom.models.v1 import artifacts_pb2 as pb
from strongroom.models.v1.artifacts_pb2_grpc import ArtifactServiceStub
from tests.callers import Caller, administrator
from tests.catalog import caller, fresh, model
from tests.stack import Stack
from tests.test_aliases_gateway import with_headers


@pytest.fixture
def admin(stack: Stack) -> Caller:
    return administrator(stack)


def url(name: str) -> str:
    return f"https://example.com/{fresh('org')}/{name}"


def register(admin: Caller, kind: str = "model", **fields: Any) -> dict[str, Any]:
    status, made = admin.rest("POST", f"/api/artifact/{kind}", {"url": url("bert"), **fields})
    assert status == 201, made
    shown: dict[str, Any] = made
    return shown


@pytest.mark.row("S3.5")
def test_an_artifact_over_rest(admin: Caller) -> None:
    address = url("bert-base-uncased")
    status, made = admin.rest("POST", "/api/artifact/model", {"url": address})
    assert status == 201
    metadata = made["metadata"]
    assert (metadata["name"], metadata["type"]) == ("bert-base-uncased", "model")
    assert made["data"]["url"] == address
    path = f"/api/artifacts/model/{metadata['id']}"
    assert admin.rest("GET", path) == (200, made)
    assert admin.rest("GET", path.replace("/model/", "/dataset/"))[0] == 404
    status, problem = admin.rest("POST", "/api/artifact/model", {"url": address})
    assert (status, problem["reason"]) == (409, "ARTIFACT_EXISTS")
    # The same address as another type is another artifact.
    assert admin.rest("POST", "/api/artifact/code", {"url": address})[0] == 201
    changed = {"metadata": metadata, "data": {"url": f"{address}-v2", "size_bytes": 5_000_000, "readme": "# new"}}
    status, answer = admin.rest("PUT", path, changed)
    assert (status, answer["data"]["url"], answer["data"]["size_bytes"]) == (200, f"{address}-v2", 5_000_000)
    for wrong in ({"id": "other"}, {"type": "code"}, {"name": "other"}):
        assert admin.rest("PUT", path, changed | {"metadata": metadata | wrong})[1]["reason"] == "ARTIFACT_INVALID"
    assert admin.rest("DELETE", path)[0] == 200
    assert admin.rest("GET", path)[1]["reason"] == "ARTIFACT_NOT_FOUND"
    assert admin.rest("POST", "/api/artifact/table", {"url": address})[1]["reason"] == "FIELD_INVALID"


@pytest.mark.row("S3.5")
def test_an_artifact_over_grpc(admin: Caller) -> None:
    request = pb.RegisterArtifactRequest(artifact_type="dataset", url=url("squad"), size_bytes=7)
    made = admin.grpc(ArtifactServiceStub, "RegisterArtifact", request)
    names = {"artifact_type": "dataset", "id": made.metadata.id}
    assert admin.grpc(ArtifactServiceStub, "GetArtifact", pb.GetArtifactRequest(**names)) == made
    data = pb.ArtifactData(url=made.data.url, size_bytes=8)
    update = pb.UpdateArtifactRequest(**names, data=data, etag=made.etag)
    assert admin.grpc(ArtifactServiceStub, "UpdateArtifact", update).data.size_bytes == 8
    assert admin.code(ArtifactServiceStub, "UpdateArtifact", update) == "ABORTED"
    found = admin.grpc(
        ArtifactServiceStub, "SearchArtifacts", pb.SearchArtifactsRequest(types=["dataset"], regex="^squad$")
    )
    assert made.metadata in found.artifacts
    cost = admin.grpc(ArtifactServiceStub, "GetArtifactCost", pb.GetArtifactCostRequest(**names))
    assert cost[made.metadata.id]["total_cost"] == 8e-6
    admin.grpc(ArtifactServiceStub, "UnregisterArtifact", pb.UnregisterArtifactRequest(**names))
    assert admin.code(ArtifactServiceStub, "GetArtifact", pb.GetArtifactRequest(**names)) == "NOT_FOUND"


@pytest.mark.row("S3.5")
def test_queries_are_answered_by_bare_lists(stack: Stack, admin: Caller) -> None:
    name = fresh("artifact")
    kinds = {kind: register(admin, kind, name=name)["metadata"] for kind in ("model", "dataset")}
    status, found = admin.rest("POST", "/api/artifacts", [{"name": name}])
    assert (status, found) == (200, list(kinds.values()))
    assert admin.rest("POST", "/api/artifacts", [{"name": name, "types": ["dataset"]}])[1] == [kinds["dataset"]]
    assert admin.rest("POST", "/api/artifacts", [{"name": fresh("nothing")}]) == (200, [])
    some = admin.rest("POST", "/api/artifacts", [{"name": "*", "types": ["code"]}, {"name": name}])[1]
    assert kinds["model"] in some
    assert admin.rest("GET", f"/api/artifact/byName/{name}")[1] == list(kinds.values())
    assert admin.rest("GET", f"/api/artifact/byName/{fresh('nothing')}")[0] == 404
    assert admin.rest("POST", "/api/artifact/byRegEx", {"regex": f"{name[:-2]}.{{2}}$"})[1] == list(kinds.values())
    assert admin.rest("POST", "/api/artifact/byRegEx", {"regex": fresh("nothing")})[0] == 404
    for wrong in ({"regex": "["}, {}, {"regex": "(a{1,1000}){1,1000}"}):
        assert admin.rest("POST", "/api/artifact/byRegEx", wrong)[0] == 400
    for queries in ([], [{}], [{"name": "x", "types": ["table"]}], ["x"]):
        assert admin.rest("POST", "/api/artifacts", queries)[0] == 400


@pytest.mark.row("S3.5")
def test_a_readme_is_searched_by_expressions_in_bounded_time(admin: Caller) -> None:
    word = fresh("word")
    made = register(admin, readme=f"{word} " + "a" * 4000)
    assert admin.rest("POST", "/api/artifact/byRegEx", {"regex": f"^{word}"})[1] == [made["metadata"]]
    started = time.monotonic()
    status, _ = admin.rest("POST", "/api/artifact/byRegEx", {"regex": f"^{word} (a+)+(a|aa)+(.*a){{10}}b$"})
    assert status == 404
    assert time.monotonic() - started < 5


@pytest.mark.row("S3.5")
def test_long_lists_go_on_at_an_offset(stack: Stack, admin: Caller) -> None:
    name = fresh("many")
    for number in range(103):
        register(admin, "code", name=name, url=f"https://example.com/{name}/{number}")
    status, headers, first = with_headers(stack, "POST", "/api/artifacts", [{"name": name}])
    assert (status, len(first)) == (200, 100)
    status, headers, second = with_headers(
        stack, "POST", f"/api/artifacts?offset={headers['offset']}", [{"name": name}]
    )
    assert (status, len(second), "offset" in headers) == (200, 3, False)
    assert len({item["id"] for item in first + second}) == 103
    _, headers, first = with_headers(stack, "GET", f"/api/artifact/byName/{name}", None)
    assert admin.rest("GET", f"/api/artifact/byName/{name}?offset={headers['offset']}")[1] == second


@pytest.mark.row("S3.5")
def test_lineage_and_cost(admin: Caller) -> None:
    data = register(admin, "dataset", size_bytes=3_000_000)["metadata"]["id"]
    base_needs = [{"artifact_id": data, "relationship": "trained_on"}]
    base = register(admin, size_bytes=10_000_000, dependencies=base_needs)["metadata"]["id"]
    needs = [
        {"artifact_id": base, "relationship": "base_model"},
        {"artifact_id": data, "relationship": "fine_tuning_dataset"},
    ]
    tuned = register(admin, size_bytes=1_500_000, dependencies=needs)["metadata"]["id"]
    graph = admin.rest("GET", f"/api/artifact/model/{tuned}/lineage")[1]
    assert {node["artifact_id"] for node in graph["nodes"]} == {tuned, base, data}
    assert {tuple(edge.values()) for edge in graph["edges"]} == {
        (base, tuned, "base_model"),
        (data, tuned, "fine_tuning_dataset"),
        (data, base, "trained_on"),
    }
    assert admin.rest("GET", f"/api/artifact/model/{tuned}/cost") == (200, {tuned: {"total_cost": 1.5}})
    assert admin.rest("GET", f"/api/artifact/model/{tuned}/cost?dependency=true")[1] == {
        tuned: {"standalone_cost": 1.5, "total_cost": 14.5},
        base: {"standalone_cost": 10, "total_cost": 13},
        data: {"standalone_cost": 3, "total_cost": 3},
    }
    unknown = register(admin)["metadata"]["id"]
    status, problem = admin.rest("GET", f"/api/artifact/model/{unknown}/cost")
    assert (status, problem["reason"]) == (400, "ARTIFACT_SIZE_UNKNOWN")


@pytest.mark.row("S3.5")
def test_a_version_that_is_stored_here_is_shown_to_those_who_may_read_it(stack: Stack, admin: Caller) -> None:
    stored = model(stack, "v1")
    made = register(admin, url=f"strongroom://default/{stored.name}/v1")
    assert made["metadata"]["name"] == stored.name
    download = made["data"]["download_url"]
    assert admin.rest("GET", download)[1]["files"][0]["path"] == "weights.bin"
    assert made["data"]["size_bytes"] == len(f"{stored.name} v1")
    names = made["metadata"]["id"]
    outsider = caller(stack, ("allow", ["artifacts.read"], ["**"]))
    seen = outsider.rest("GET", f"/api/artifacts/model/{names}")[1]
    assert (seen["data"]["download_url"], seen["data"]["size_bytes"]) == ("", 0)
    assert outsider.rest("GET", f"/api/artifact/model/{names}/cost")[1]["reason"] == "ARTIFACT_SIZE_UNKNOWN"


@pytest.mark.row("S3.5")
def test_who_may_read_some_artifacts_sees_no_others(stack: Stack, admin: Caller) -> None:
    name = fresh("artifact")
    hidden = register(admin, "dataset", name=name, size_bytes=1)["metadata"]["id"]
    needs = [{"artifact_id": hidden, "relationship": "trained_on"}]
    shown = register(admin, "model", name=name, size_bytes=2_000_000, dependencies=needs)["metadata"]["id"]
    reader = caller(stack, ("allow", ["artifacts.read", "artifacts.write"], ["artifacts/model", "artifacts/model/*"]))
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/api/artifacts", [{"name": name}]),
        ("GET", f"/api/artifact/byName/{name}", None),
        ("POST", "/api/artifact/byRegEx", {"regex": name}),
        ("GET", f"/api/artifacts/model/{shown}", None),
        ("GET", f"/api/artifact/model/{shown}/lineage", None),
        ("GET", f"/api/artifact/model/{shown}/cost?dependency=true", None),
    ]
    for verb, path, body in asked:
        status, answer = reader.rest(verb, path, body)
        assert status == 200
        assert (shown in json.dumps(answer), hidden in json.dumps(answer)) == (True, False), path
    for path in (f"/api/artifacts/dataset/{hidden}", f"/api/artifact/dataset/{hidden}/cost"):
        assert reader.rest("GET", path)[0] == 403
    # By the type of another it is not found either, nor can one depend on it.
    assert reader.rest("GET", f"/api/artifacts/model/{hidden}")[0] == 404
    status, problem = reader.rest("POST", "/api/artifact/model", {"url": url("x"), "dependencies": needs})
    assert (status, problem["reason"]) == (404, "ARTIFACT_NOT_FOUND")
    assert reader.rest("POST", "/api/artifact/dataset", {"url": url("x")})[0] == 403


@pytest.mark.row("S3.5")
@pytest.mark.parametrize(
    "address",
    [
        "https://user:hunter2@example.com/x",
        "https://example.com/x?X-Amz-Signature=hunter2",
        "https://example.com/x?api_key=hunter2",
        "file:///etc/hunter2",
        "strongroom://default/hunter2",
        "strongroom://default/../hunter2",
        "https://exa mple.com/hunter2",
        "hunter2",
        "https://[hunter2",
    ],
)
def test_an_address_that_holds_a_secret_or_is_none_is_refused_and_not_repeated(admin: Caller, address: str) -> None:
    status, problem = admin.rest("POST", "/api/artifact/model", {"url": address})
    assert (status, problem["reason"]) == (400, "URL_INVALID")
    assert "hunter2" not in json.dumps(problem)
