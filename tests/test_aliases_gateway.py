"""Aliases, stages, tags, cards, lineage and search through the gateway, over REST and over gRPC."""

import http.client
import json
from typing import Any

import grpc
import pytest

from strongroom.models.v1 import catalog_pb2 as pb
from strongroom.models.v1 import managers_pb2, managers_pb2_grpc, models_pb2, models_pb2_grpc
from strongroom.models.v1.catalog_pb2_grpc import CatalogServiceStub
from tests.callers import Caller, administrator
from tests.catalog import Model, caller, fresh, model
from tests.stack import Stack


@pytest.fixture
def scorer(stack: Stack) -> Model:
    return model(stack, "v1", "v2")


@pytest.fixture
def admin(stack: Stack) -> Caller:
    return administrator(stack)


def with_headers(stack: Stack, verb: str, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers in lower case and JSON of an answer."""
    connection = http.client.HTTPConnection(stack.target, timeout=20)
    try:
        sent = {"x-api-key": stack.admin_key, "content-type": "application/json", **headers}
        connection.request(verb, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.row("B4")
def test_an_alias_over_rest(admin: Caller, scorer: Model) -> None:
    path = f"{scorer.path}/aliases/champion"
    assert admin.rest("GET", path)[0] == 404
    status, made = admin.rest("PUT", path, {"version": "v1"})
    assert (status, made["version"], made["previous_version"]) == (200, "v1", "")
    status, moved = admin.rest("PUT", path, {"version": "latest"})
    assert (status, moved["version"], moved["previous_version"]) == (200, "v2", "v1")
    assert moved["updated_by"].startswith("key:")
    assert admin.rest("GET", path)[1]["version"] == "v2"
    assert [a["alias"] for a in admin.rest("GET", f"{scorer.path}/aliases")[1]["aliases"]] == ["champion"]
    shown = admin.rest("GET", f"{scorer.path}/versions/v2")[1]
    assert (shown["aliases"], shown["stage"], shown["etag"]) == (["champion"], "none", "0")
    assert admin.rest("DELETE", path)[0] == 200
    assert admin.rest("GET", path)[1]["reason"] == "ALIAS_NOT_FOUND"


@pytest.mark.row("B4")
def test_an_alias_over_grpc(admin: Caller, scorer: Model) -> None:
    made = admin.grpc(CatalogServiceStub, "SetAlias", pb.SetAliasRequest(**scorer.names, alias="a", version="v1"))
    assert admin.grpc(CatalogServiceStub, "GetAlias", pb.GetAliasRequest(**scorer.names, alias="a")).etag == made.etag
    listed = admin.grpc(CatalogServiceStub, "ListAliases", pb.ListAliasesRequest(**scorer.names))
    assert [(alias.alias, alias.version) for alias in listed.aliases] == [("a", "v1")]
    admin.grpc(CatalogServiceStub, "DeleteAlias", pb.DeleteAliasRequest(**scorer.names, alias="a"))
    assert admin.code(CatalogServiceStub, "GetAlias", pb.GetAliasRequest(**scorer.names, alias="a")) == "NOT_FOUND"


@pytest.mark.row("B4")
def test_who_may_set_aliases_but_not_champion(stack: Stack, scorer: Model) -> None:
    everywhere = ["managers/default/**"]
    promoter = caller(
        stack,
        ("allow", ["models.read", "models.alias", "models.delete", "models.write"], everywhere),
        ("deny", ["models.alias"], ["managers/*/models/*/aliases/champion", "managers/*/models/*/stages/production"]),
    )
    assert promoter.rest("PUT", f"{scorer.path}/aliases/candidate", {"version": "v1"})[0] == 200
    status, problem = promoter.rest("PUT", f"{scorer.path}/aliases/champion", {"version": "v1"})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    request = pb.SetAliasRequest(**scorer.names, alias="champion", version="v1")
    assert promoter.code(CatalogServiceStub, "SetAlias", request) == "PERMISSION_DENIED"
    # Nor by another spelling of the same path, by the body, or by the query.
    for path in ("champion?alias=candidate", "%63hampion"):
        assert promoter.rest("PUT", f"{scorer.path}/aliases/{path}", {"version": "v1"})[0] in (400, 403)
    body = {"version": "v1", "alias": "champion"}
    assert promoter.rest("PUT", f"{scorer.path}/aliases/candidate", body)[0] in (200, 400)
    assert administrator(stack).rest("GET", f"{scorer.path}/aliases/champion")[0] == 404
    # Nor by deleting what it names, or by taking a version out of the stage it may not touch.
    boss = administrator(stack)
    boss.rest("PUT", f"{scorer.path}/aliases/champion", {"version": "v2"})
    assert promoter.rest("DELETE", f"{scorer.path}/aliases/champion")[0] == 403
    status, problem = promoter.rest("DELETE", f"{scorer.path}/versions/v2")
    assert (status, problem["reason"]) == (400, "VERSION_IN_USE")
    assert boss.rest("PUT", f"{scorer.path}/versions/v2/stage", {"stage": "production"})[0] == 200
    status, problem = promoter.rest("PUT", f"{scorer.path}/versions/v2/stage", {"stage": "archived"})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert promoter.rest("PUT", f"{scorer.path}/versions/v1/stage", {"stage": "production"})[0] == 403
    assert promoter.rest("PUT", f"{scorer.path}/versions/v1/stage", {"stage": "staging"})[1]["stage"] == "staging"


@pytest.mark.row("B4")
def test_a_promotion_on_condition_that_the_version_is_better(admin: Caller, scorer: Model) -> None:
    def metrics(version: str, **values: float) -> None:
        request = managers_pb2.RecordMetricsRequest(**scorer.names, version=version, metrics=values)
        admin.grpc(managers_pb2_grpc.ManagerServiceStub, "RecordMetrics", request)

    path = f"{scorer.path}/aliases/champion"
    status, problem = admin.rest("PUT", path, {"version": "v1", "if_better": "mse"})
    assert (status, problem["reason"]) == (400, "PROMOTION_REFUSED")
    metrics("v1", mse=0.5, accuracy=0.9)
    assert admin.rest("PUT", path, {"version": "v1", "if_better": "mse"})[0] == 200
    metrics("v2", mse=0.4, accuracy=0.8)
    assert admin.rest("PUT", path, {"version": "v2", "if_better": "accuracy"})[1]["reason"] == "PROMOTION_REFUSED"
    request = pb.SetAliasRequest(**scorer.names, alias="champion", version="v2", if_better="mse")
    assert admin.grpc(CatalogServiceStub, "SetAlias", request).previous_version == "v1"
    assert admin.code(CatalogServiceStub, "SetAlias", request) == "FAILED_PRECONDITION"


@pytest.mark.row("B4")
def test_who_was_faster_is_not_overwritten(stack: Stack, admin: Caller, scorer: Model) -> None:
    path = f"{scorer.path}/aliases/champion"
    status, headers, made = with_headers(stack, "PUT", path, {"version": "v1"}, **{"If-None-Match": "*"})
    assert (status, headers["etag"]) == (200, f'"{made["etag"]}"')
    status, _, problem = with_headers(stack, "PUT", path, {"version": "v2"}, **{"If-None-Match": "*"})
    assert (status, problem["status"], problem["reason"]) == (412, 412, "ETAG_MISMATCH")
    assert problem["title"] == "Precondition Failed"
    status, _, moved = with_headers(stack, "PUT", path, {"version": "v2"}, **{"If-Match": headers["etag"]})
    assert (status, moved["version"]) == (200, "v2")
    assert admin.rest("PUT", path, {"version": "v1", "etag": made["etag"]})[0] == 412
    request = pb.SetAliasRequest(**scorer.names, alias="champion", version="v1", etag=made["etag"])
    assert admin.code(CatalogServiceStub, "SetAlias", request) == "ABORTED"
    assert admin.rest("DELETE", f"{path}?etag={made['etag']}")[0] == 412
    for wrong in ("*", moved["etag"]):
        assert admin.rest("PUT", path, {"version": "v2", "etag": wrong})[0] in (200, 412)


@pytest.mark.row("B4")
def test_cards_and_tags(stack: Stack, admin: Caller, scorer: Model) -> None:
    status, headers, shown = with_headers(stack, "GET", scorer.path, None)
    assert (status, shown["tags"], shown["card"], shown["etag"], headers["etag"]) == (200, {}, "", "0", '"0"')
    body = {"card": "# Scorer\nFails on Sundays.", "tags": {"team": "risk"}, "etag": "0"}
    changed = admin.rest("PUT", scorer.path, body)[1]
    assert (changed["card"], changed["tags"]) == (body["card"], {"team": "risk"})
    assert admin.rest("PUT", scorer.path, body)[0] == 412
    version = f"{scorer.path}/versions/v1"
    noted = admin.rest("PUT", version, {"card": "the first", "tags": {"seed": "7"}})[1]
    assert (noted["card"], noted["tags"], noted["files"]) == ("the first", {"seed": "7"}, [])
    shown = admin.rest("GET", version)[1]
    assert (shown["card"], shown["tags"], shown["etag"]) == ("the first", {"seed": "7"}, noted["etag"])
    listed = admin.rest("GET", f"{scorer.path}/versions")[1]["versions"]
    assert [(v["version"], v["tags"], v["card"]) for v in listed] == [("v2", {}, ""), ("v1", {"seed": "7"}, "")]
    assert admin.grpc(CatalogServiceStub, "GetModel", pb.GetModelRequest(**scorer.names)).tags == {"team": "risk"}
    over_grpc = pb.UpdateVersionRequest(**scorer.names, version="v1", etag=noted["etag"])
    assert admin.grpc(CatalogServiceStub, "UpdateVersion", over_grpc).tags == {}


@pytest.mark.row("B4")
@pytest.mark.parametrize(
    "body",
    [
        {"tags": {"a b": "x"}},
        {"tags": {"a": "\u00e9" * 129}},
        {"tags": {f"t{n}": "" for n in range(33)}},
        {"card": "x" * 65_537},
        {"etag": "no etag"},
    ],
)
def test_what_is_said_is_bounded(admin: Caller, scorer: Model, body: dict[str, Any]) -> None:
    for path in (scorer.path, f"{scorer.path}/versions/v1"):
        status, problem = admin.rest("PUT", path, body)
        assert (status, problem["reason"]) == (400, "FIELD_INVALID")


@pytest.mark.row("B4")
def test_a_deleted_version_takes_what_was_said_with_it(admin: Caller, scorer: Model) -> None:
    admin.rest("PUT", f"{scorer.path}/versions/v1", {"card": "the first", "tags": {"seed": "7"}})
    admin.rest("PUT", scorer.path, {"card": "about both"})
    for version in ("v1", "v2"):
        assert admin.rest("DELETE", f"{scorer.path}/versions/{version}")[0] == 200
    assert admin.rest("GET", scorer.path)[1]["reason"] == "MODEL_NOT_FOUND"


@pytest.mark.row("B4")
def test_lineage(stack: Stack, admin: Caller, scorer: Model) -> None:
    base = model(stack, "base")
    parents = [
        {"model_name": base.name, "version": "base", "relationship": "fine-tuned-from"},
        {"uri": "s3://data/2026", "relationship": "trained-on"},
    ]
    status, made = admin.rest("PUT", f"{scorer.path}/versions/v1/parents", {"parents": parents})
    assert status == 200, made
    assert {edge["relationship"] for edge in made["edges"]} == {"fine-tuned-from", "trained-on"}
    assert {node["uri"] or node["version"] for node in made["nodes"]} == {"v1", "base", "s3://data/2026"}
    step = pb.Parent(model_name=scorer.name, version="v1", relationship="distilled-from")
    request = pb.SetParentsRequest(**scorer.names, version="v2", parents=[step])
    assert len(admin.grpc(CatalogServiceStub, "SetParents", request).nodes) == 4
    # Seen from the other end: what was made of the base.
    asked = pb.GetLineageRequest(**base.names, version="base")
    graph = admin.grpc(CatalogServiceStub, "GetLineage", asked)
    assert [node.version for node in graph.nodes] == ["base", "v1", "v2"]
    # Who may read only one of the models sees only that.
    reader = caller(stack, ("allow", ["models.read"], [f"managers/default/models/{scorer.name}"]))
    seen = reader.rest("GET", f"{scorer.path}/versions/v2/lineage")[1]
    assert base.name not in json.dumps(seen)
    assert {node["version"] for node in seen["nodes"]} == {"v1", "v2", ""}
    # What it was called outlives a parent.
    assert admin.rest("DELETE", f"{base.path}/versions/base")[0] == 200
    nodes = admin.rest("GET", f"{scorer.path}/versions/v1/lineage")[1]["nodes"]
    assert [(n["model_name"], n["version"]) for n in nodes if n["deleted"]] == [(base.name, "base")]


@pytest.mark.row("B4")
def test_a_parent_that_one_may_not_read_is_not_there(stack: Stack, scorer: Model) -> None:
    secret = model(stack, "v1")
    writer = caller(stack, ("allow", ["models.read", "models.write"], [f"managers/default/models/{scorer.name}"]))
    path = f"{scorer.path}/versions/v1/parents"
    answers = []
    for name in (secret.name, fresh("nothing")):
        parents = [{"model_name": name, "version": "v1", "relationship": "x"}]
        status, problem = writer.rest("PUT", path, {"parents": parents})
        answers.append((status, problem["reason"], problem["detail"].replace(name, "")))
    assert answers[0] == answers[1]
    assert answers[0][:2] == (404, "MODEL_NOT_FOUND")
    for uri in ("https://me:pw@host/x", "https://host/x?access_token=abc", "file:///etc/passwd", "javascript:x"):
        status, problem = writer.rest("PUT", path, {"parents": [{"uri": uri, "relationship": "x"}]})
        assert (status, problem["reason"]) == (400, "URL_INVALID")
        assert uri not in json.dumps(problem)


@pytest.mark.row("B4")
def test_search(stack: Stack, admin: Caller, scorer: Model) -> None:
    admin.rest("PUT", scorer.path, {"card": "Ranks Loans", "tags": {"team": scorer.name}})
    admin.rest("PUT", f"{scorer.path}/versions/v1", {"card": "with dropout", "tags": {"seed": "7"}})
    admin.rest("PUT", f"{scorer.path}/versions/v2/stage", {"stage": "staging"})
    found = admin.rest("GET", f"/api/v1/managers/default/search/models?tags=team%3D{scorer.name}&query=loans")[1]
    assert [m["name"] for m in found["models"]] == [scorer.name]
    asked = pb.SearchModelsRequest(manager_id="default", regex=f"^{scorer.name[:-1]}.$")
    assert [m.name for m in admin.grpc(CatalogServiceStub, "SearchModels", asked).models] == [scorer.name]
    versions = "/api/v1/managers/default/search/versions"
    for query, expected in {
        f"model={scorer.name}": ["v2", "v1"],
        f"model={scorer.name}&page_size=1": ["v2"],
        f"regex=%5E{scorer.name}%40v1%24": ["v1"],
        f"model={scorer.name}&tags=seed%3D7": ["v1"],
        f"model={scorer.name}&tags=seed%3D8": [],
        f"model={scorer.name}&stage=staging": ["v2"],
        f"model={scorer.name}&stage=none": ["v1"],
        f"model={scorer.name}&query=DROPOUT": ["v1"],
    }.items():
        status, answer = admin.rest("GET", f"{versions}?{query}")
        assert (status, [v["version"] for v in answer["versions"]]) == (200, expected), query
    token = admin.rest("GET", f"{versions}?model={scorer.name}&page_size=1")[1]["next_page_token"]
    following = pb.SearchVersionsRequest(manager_id="default", model=scorer.name, page_size=1, page_token=token)
    assert [v.version for v in admin.grpc(CatalogServiceStub, "SearchVersions", following).versions] == ["v1"]
    stranger = caller(stack, ("allow", ["models.read"], ["managers/default/models/another"]))
    assert stranger.rest("GET", f"{versions}?model={scorer.name}")[1]["versions"] == []
    for wrong in ("regex=%5B", "tags=seed", "page_token=x"):
        assert admin.rest("GET", f"{versions}?{wrong}")[0] == 400


@pytest.mark.row("B4")
def test_pages_of_aliases(admin: Caller, scorer: Model) -> None:
    for name in ("a", "b", "c"):
        admin.rest("PUT", f"{scorer.path}/aliases/{name}", {"version": "v1"})
    first = admin.rest("GET", f"{scorer.path}/aliases?page_size=2")[1]
    second = admin.rest("GET", f"{scorer.path}/aliases?page_size=2&page_token={first['next_page_token']}")[1]
    assert [a["alias"] for page in (first, second) for a in page["aliases"]] == ["a", "b", "c"]
    assert second["next_page_token"] == ""
    request = models_pb2.GetVersionRequest(**scorer.names, version="v1")
    shown = admin.grpc(models_pb2_grpc.ModelServiceStub, "GetVersion", request)
    assert list(shown.aliases) == ["a", "b", "c"]


def test_names_that_are_none(admin: Caller, scorer: Model) -> None:
    assert admin.rest("PUT", f"{scorer.path}/aliases/latest", {"version": "v1"})[1]["reason"] == "NAME_RESERVED"
    assert admin.rest("PUT", f"{scorer.path}/aliases/a", {"version": "v9"})[1]["reason"] == "VERSION_NOT_FOUND"
    assert admin.rest("PUT", f"{scorer.path}x/aliases/a", {"version": "v1"})[1]["reason"] == "MODEL_NOT_FOUND"
    assert admin.rest("PUT", f"{scorer.path}/versions/v1/stage", {"stage": "nowhere"})[0] == 400


def test_a_stranger_is_refused(stack: Stack, scorer: Model) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        Caller(stack).grpc(CatalogServiceStub, "GetModel", pb.GetModelRequest(**scorer.names))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
