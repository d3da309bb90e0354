"""Training and prediction through the gateway, over REST and over gRPC."""

import hashlib
import http.client
import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from ulid import ULID

from strongroom.models.v1 import configs_pb2, jobs_pb2, ml_artifacts_pb2, ml_pb2, system_pb2
from strongroom.models.v1.configs_pb2_grpc import ConfigServiceStub
from strongroom.models.v1.jobs_pb2_grpc import JobServiceStub
from strongroom.models.v1.ml_artifacts_pb2_grpc import MlArtifactServiceStub
from strongroom.models.v1.ml_pb2_grpc import MlServiceStub
from strongroom.models.v1.system_pb2_grpc import SystemServiceStub
from tests.callers import Caller, administrator
from tests.catalog import fresh
from tests.ml_callers import TRAINING, config, ended, trained
from tests.ml_jobs import CASES, WEATHER, table
from tests.stack import Stack


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Caller:
    return administrator(stack)


@pytest.fixture(scope="module")
def model(admin: Caller) -> dict[str, Any]:
    return trained(admin, {"target": "disease_cases"})


@pytest.mark.row("S1.1")
def test_configs_over_rest(admin: Caller) -> None:
    given, name = str(ULID()), fresh("config")
    status, made = admin.rest("POST", "/api/v1/configs", {"id": given, "name": name, "data": {"estimator": "Ridge"}})
    assert (status, made["id"], made["data"]) == (201, given, {"estimator": "Ridge"})
    assert set(made) == {"id", "name", "data", "created_at", "updated_at"}
    path = f"/api/v1/configs/{given}"
    assert admin.rest("GET", path) == (200, made)
    again = admin.rest("POST", "/api/v1/configs", {"id": given, "name": name, "data": {}})
    assert (again[0], again[1]["reason"]) == (409, "CONFIG_EXISTS")
    changed = admin.rest("PUT", path, {"name": name, "data": {"estimator": "Lasso", "parameters": {"alpha": 0.5}}})
    assert (changed[0], changed[1]["data"]["parameters"]) == (200, {"alpha": 0.5})
    status, listed = admin.rest("GET", f"/api/v1/configs?page_size=1000&page_token={given[:-1]}")
    assert status == 200
    assert changed[1] in listed
    assert admin.rest("DELETE", path) == (204, None)
    for verb, body in (("GET", None), ("PUT", {"name": name, "data": {}}), ("DELETE", None)):
        assert admin.rest(verb, path, body)[1]["reason"] == "CONFIG_NOT_FOUND"
    for wrong in ({"id": "x", "name": name}, {"id": given[:-1] + "U", "name": name}, {"name": ""}, {"name": "a\nb"}):
        assert admin.rest("POST", "/api/v1/configs", wrong)[0] == 400, wrong


@pytest.mark.row("S1.1")
def test_configs_over_grpc(admin: Caller) -> None:
    request = configs_pb2.CreateConfigRequest(name=fresh("config"))
    request.data.update({"estimator": "Ridge"})
    made = admin.grpc(ConfigServiceStub, "CreateConfig", request)
    assert admin.grpc(ConfigServiceStub, "GetConfig", configs_pb2.GetConfigRequest(id=made.id)) == made
    listed = admin.grpc(ConfigServiceStub, "ListConfigs", configs_pb2.ListConfigsRequest(page_token=made.id[:-1]))
    assert made in listed.configs
    update = configs_pb2.UpdateConfigRequest(id=made.id, name="another")
    assert admin.grpc(ConfigServiceStub, "UpdateConfig", update).name == "another"
    schema = admin.grpc(ConfigServiceStub, "GetConfigSchema", configs_pb2.GetConfigSchemaRequest())
    assert "estimator" in json_format.MessageToDict(schema)["properties"]
    admin.grpc(ConfigServiceStub, "DeleteConfig", configs_pb2.DeleteConfigRequest(id=made.id))
    assert admin.code(ConfigServiceStub, "GetConfig", configs_pb2.GetConfigRequest(id=made.id)) == "NOT_FOUND"


@pytest.mark.row("S1.1")
def test_a_config_is_checked_against_the_schema(admin: Caller) -> None:
    status, schema = admin.rest("GET", "/api/v1/configs/$schema")
    assert status == 200
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "LinearRegression" in schema["properties"]["estimator"]["enum"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"estimator": "os.system"}, "data.estimator"),
        ({"parameters": {"n_jobs": 8}}, "data.parameters"),
        ({"estimator": "Ridge", "parameters": {"alpha": -1}}, "data.parameters.alpha"),
        ({"steps": [{"transformer": "StandardScaler", "parameters": {"copy": False}}]}, "data.steps.0.parameters"),
        ({"steps": [{"transformer": "FunctionTransformer"}]}, "data.steps.0.transformer"),
        ({"anything": 1}, "data"),
        ({"manager_id": "../x"}, "data.manager_id"),
    ]
    for data, path in wrong:
        status, problem = admin.rest("POST", "/api/v1/configs", {"name": "wrong", "data": data})
        assert (status, problem["reason"]) == (400, "CONFIG_INVALID"), data
        assert problem["detail"].startswith(f"{path}: "), problem["detail"]
    assert admin.rest("POST", "/api/v1/configs", {"name": "x", "data": {"runner": "none"}})[0] == 404
    assert admin.rest("POST", "/api/v1/configs", {"name": "x", "data": {"target": "x" * 70_000}})[0] == 400


@pytest.mark.row("S1.2")
def test_what_cannot_work_is_refused_at_once(admin: Caller, model: dict[str, Any]) -> None:
    def train(**fields: Any) -> tuple[int, str, str]:
        body = {"config_id": model["config_id"], "data": TRAINING} | fields
        status, problem = admin.rest("POST", "/api/v1/ml/$train", body)
        return status, problem.get("reason", ""), problem.get("detail", "")

    def predict(**fields: Any) -> tuple[int, str, str]:
        future = {"columns": WEATHER[:2], "data": [[1, 2]]}
        body = {"model_artifact_id": model["model_artifact_id"], "future": future} | fields
        status, problem = admin.rest("POST", "/api/v1/ml/$predict", body)
        return status, problem.get("reason", ""), problem.get("detail", "")

    assert train(config_id=str(ULID()))[:2] == (404, "CONFIG_NOT_FOUND")
    assert predict(model_artifact_id=str(ULID()))[:2] == (404, "ARTIFACT_NOT_FOUND")
    status, reason, detail = train(data={"columns": ["rainfall"], "data": [[1]]})
    assert (status, reason) == (400, "COLUMNS_MISSING")
    assert "'disease_cases'" in detail
    status, reason, detail = predict(future={"columns": ["rainfall", "wind"], "data": [[1, 2]]})
    assert (status, reason) == (400, "COLUMNS_MISSING")
    assert "'mean_temperature'" in detail
    assert "'wind'" in detail
    for wrong in (
        {"columns": WEATHER, "data": []},
        {"columns": WEATHER, "data": [[1, 2]]},
        {"columns": WEATHER, "data": [[1, 2, [3]]]},
        {"columns": WEATHER, "data": [[1, 2, {"a": 3}]]},
        {"columns": [*WEATHER, WEATHER[0]], "data": [[1, 2, 3, 4]]},
        {"columns": [], "data": []},
    ):
        assert train(data=wrong)[:2] == (400, "TABLE_INVALID"), wrong
    assert train(data=None)[0] == 400
    assert predict(future={"columns": [*WEATHER[:2], "sample_0"], "data": []})[:2] == (400, "TABLE_INVALID")


@pytest.mark.row("S1.2")
@pytest.mark.row("S1.4")
def test_train_and_predict_over_grpc(admin: Caller, model: dict[str, Any]) -> None:
    request = ml_pb2.TrainRequest(config_id=model["config_id"], data=table(WEATHER, CASES))
    submitted = admin.grpc(MlServiceStub, "Train", request)
    assert ended(admin, submitted.job_id)["status"] == "completed"
    rows = [[110.0, 26.0], [90.0, 28.0]]
    predict = ml_pb2.PredictRequest(model_artifact_id=submitted.model_artifact_id, future=table(WEATHER[:2], rows))
    predicted = admin.grpc(MlServiceStub, "Predict", predict)
    job = ended(admin, predicted.job_id)
    get = ml_artifacts_pb2.GetMlArtifactRequest(id=predicted.prediction_artifact_id)
    artifact = admin.grpc(MlArtifactServiceStub, "GetMlArtifact", get)
    assert (artifact.level, artifact.parent_id.string_value) == (1, submitted.model_artifact_id)
    answer = json_format.MessageToDict(artifact.data)["predictions"]["data"]
    assert [round(row[2], 3) for row in answer] == [13.046, 8.629]
    shown = admin.grpc(JobServiceStub, "GetJob", jobs_pb2.GetJobRequest(id=predicted.job_id))
    assert (shown.type, shown.status, shown.progress) == ("predict", job["status"], 1.0)


@pytest.mark.row("S1.4")
def test_artifacts_are_trees(admin: Caller, model: dict[str, Any]) -> None:
    root = model["model_artifact_id"]
    status, first = admin.rest("POST", "/api/v1/artifacts", {"parent_id": root, "data": {"note": [1, None, "x"]}})
    assert (status, first["level"], first["parent_id"], first["data"]["note"]) == (201, 1, root, [1, None, "x"])
    given = str(ULID())
    status, second = admin.rest("POST", "/api/v1/artifacts", {"id": given, "parent_id": first["id"], "data": 1})
    assert (status, second["id"], second["level"]) == (201, given, 2)
    assert admin.rest("POST", "/api/v1/artifacts", {"id": given})[1]["reason"] == "ARTIFACT_EXISTS"
    assert admin.rest("POST", "/api/v1/artifacts", {"parent_id": str(ULID())})[1]["reason"] == "ARTIFACT_NOT_FOUND"
    status, tree = admin.rest("GET", f"/api/v1/artifacts/{root}/$tree")
    assert (status, tree["id"], tree["parent_id"]) == (200, root, None)
    [child] = [node for node in tree["children"] if node["id"] == first["id"]]
    assert [node["id"] for node in child["children"]] == [given]
    status, listed = admin.rest("GET", "/api/v1/artifacts?page_size=1000")
    assert {given, first["id"]} <= {artifact["id"] for artifact in listed}
    refused = admin.rest("DELETE", f"/api/v1/artifacts/{first['id']}")
    assert (refused[0], refused[1]["reason"]) == (400, "ARTIFACT_HAS_CHILDREN")
    assert admin.rest("DELETE", f"/api/v1/artifacts/{given}") == (204, None)
    assert admin.rest("DELETE", f"/api/v1/artifacts/{first['id']}") == (204, None)
    assert admin.rest("GET", f"/api/v1/artifacts/{given}")[1]["reason"] == "ARTIFACT_NOT_FOUND"
    tree = admin.grpc(MlArtifactServiceStub, "GetMlArtifactTree", ml_artifacts_pb2.GetMlArtifactTreeRequest(id=root))
    assert given not in str(tree)


@pytest.mark.row("S1.4")
def test_a_model_is_a_version_and_goes_with_its_artifact(admin: Caller) -> None:
    name = fresh("disease")
    config_id = config(admin, {"model_name": name, "steps": [{"transformer": "StandardScaler"}]})
    _, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": config_id, "data": TRAINING})
    assert ended(admin, submitted["job_id"])["status"] == "completed"
    artifact_id = submitted["model_artifact_id"]
    _, artifact = admin.rest("GET", f"/api/v1/artifacts/{artifact_id}")
    assert artifact["url"] == f"strongroom://default/{name}/{artifact_id}"
    data = artifact["data"]
    assert (data["config_id"], data["rows"], data["target"], data["runner"]) == (config_id, 8, WEATHER[2], "sklearn")
    assert len(data["data_sha256"]) == 64
    path = f"/api/v1/managers/default/models/{name}/versions/{artifact_id}"
    _, version = admin.rest("GET", path)
    assert [file["path"] for file in version["files"]] == ["model.skops"]
    assert admin.rest("POST", f"{path}:verify", {})[0] == 200
    assert admin.rest("DELETE", f"/api/v1/artifacts/{artifact_id}") == (204, None)
    assert admin.rest("GET", path)[0] == 404
    _, problem = admin.rest(
        "POST", "/api/v1/ml/$predict", {"model_artifact_id": artifact_id, "future": {"columns": [], "data": []}}
    )
    assert problem["reason"] == "ARTIFACT_NOT_FOUND"


@pytest.mark.row("S1.3")
def test_jobs_are_listed_canceled_and_deleted(admin: Caller, model: dict[str, Any]) -> None:
    path = f"/api/v1/jobs/{model['job_id']}"
    _, job = admin.rest("GET", path)
    status, listed = admin.rest("GET", "/api/v1/jobs?page_size=1000&status=completed")
    assert status == 200
    assert job in listed
    assert all(found["status"] == "completed" for found in listed)
    answer = admin.grpc(JobServiceStub, "ListJobs", jobs_pb2.ListJobsRequest(page_size=1))
    assert len(answer.jobs) == 1
    assert admin.rest("GET", "/api/v1/jobs?status=other")[0] == 400
    _, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": model["config_id"], "data": TRAINING})
    own = f"/api/v1/jobs/{submitted['job_id']}"
    assert ended(admin, submitted["job_id"])["status"] == "completed"
    assert admin.rest("DELETE", own) == (204, None)
    assert admin.rest("GET", own)[1]["reason"] == "JOB_NOT_FOUND"
    assert admin.rest("DELETE", own)[1]["reason"] == "JOB_NOT_FOUND"
    assert admin.rest("GET", f"/api/v1/artifacts/{submitted['model_artifact_id']}")[0] == 200


def events(stack: Stack, path: str) -> Iterator[tuple[str, str, Any]]:
    """Server-sent events as they come: kind, id, data."""
    connection = http.client.HTTPConnection(stack.target, timeout=60)
    connection.request("GET", path, headers={"x-api-key": stack.admin_key})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
    fields: dict[str, str] = {}
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        else:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}
    connection.close()


@pytest.mark.row("S1.3")
def test_a_job_is_followed_live(stack: Stack, admin: Caller, model: dict[str, Any]) -> None:
    body = {"config_id": model["config_id"], "data": TRAINING}
    _, submitted = admin.rest("POST", "/api/v1/ml/$train", body)
    seen = list(events(stack, f"/api/v1/jobs/{submitted['job_id']}/$stream"))
    states = [data["status"] for kind, _, data in seen if kind == "status"]
    assert states[-1] == "completed"
    assert states == sorted(states, key=("pending", "running", "completed").index)
    request = jobs_pb2.WatchJobRequest(id=submitted["job_id"])
    with grpc.insecure_channel(stack.target) as channel:
        metadata = [("x-api-key", stack.admin_key)]
        [last] = JobServiceStub(channel).WatchJob(request, metadata=metadata, timeout=20)
    assert last.job.status == "completed"
    assert admin.rest("GET", f"/api/v1/jobs/{submitted['job_id']}/log") == (200, {"lines": []})
    assert admin.rest("GET", f"/api/v1/jobs/{ULID()}/$stream")[1]["reason"] == "JOB_NOT_FOUND"


@pytest.mark.row("S1.3")
def test_a_running_job_is_canceled_and_its_followers_see_it(stack: Stack, admin: Caller) -> None:
    slow = {"estimator": "RandomForestRegressor", "parameters": {"n_estimators": 10_000}}
    _, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": config(admin, slow), "data": TRAINING})
    path, states = f"/api/v1/jobs/{submitted['job_id']}", []
    for kind, _, data in events(stack, f"{path}/$stream"):
        assert kind == "status"
        if data["status"] == "running" and "running" not in states:
            assert admin.rest("DELETE", path) == (204, None)
        states.append(data["status"])
    assert states[-1] == "canceled"
    _, job = admin.rest("GET", path)
    assert (job["result"], job["artifact_id"]) == ("Canceled", submitted["model_artifact_id"])
    assert admin.rest("GET", f"/api/v1/artifacts/{submitted['model_artifact_id']}")[0] == 404


@pytest.mark.row("S1.4")
def test_a_prediction_leads_to_its_model_its_config_and_its_data(admin: Caller) -> None:
    made = trained(admin, {"estimator": "Ridge", "parameters": {"alpha": 0.5}, "target": "disease_cases"})
    # Whoever changes or deletes the config afterwards does not change what the model was made of.
    config_path = f"/api/v1/configs/{made['config_id']}"
    assert admin.rest("PUT", config_path, {"name": "another", "data": {"estimator": "Lasso"}})[0] == 200
    body = {"model_artifact_id": made["model_artifact_id"], "future": {"columns": WEATHER[:2], "data": [[110, 26]]}}
    _, submitted = admin.rest("POST", "/api/v1/ml/$predict", body)
    assert ended(admin, submitted["job_id"])["model_artifact_id"] == made["model_artifact_id"]
    _, prediction = admin.rest("GET", f"/api/v1/artifacts/{submitted['prediction_artifact_id']}")
    assert prediction["job_id"] == submitted["job_id"]
    _, model = admin.rest("GET", f"/api/v1/artifacts/{prediction['parent_id']}")
    assert (model["id"], model["job_id"]) == (made["model_artifact_id"], made["job_id"])
    assert model["config_id"] == model["data"]["config_id"] == made["config_id"]
    assert model["data"]["config"] == {
        "estimator": "Ridge",
        "parameters": {"alpha": 0.5},
        "target": "disease_cases",
    }
    data = {"columns": WEATHER, "data": [list(map(float, row)) for row in CASES]}
    digest = hashlib.sha256(json.dumps(data, separators=(",", ":")).encode()).hexdigest()
    assert model["data"]["data_sha256"] == digest
    assert (model["data"]["rows"], model["data"]["features"]) == (8, WEATHER[:2])
    get = ml_artifacts_pb2.GetMlArtifactRequest(id=prediction["parent_id"])
    over_grpc = admin.grpc(MlArtifactServiceStub, "GetMlArtifact", get)
    assert over_grpc.config_id == admin.rest("GET", config_path)[1]["id"]


@pytest.mark.row("S1.4")
@pytest.mark.row("S0.7")
def test_what_jobs_made_outlives_a_rotation_and_goes_with_its_manager(admin: Caller) -> None:
    request = {"model_path": fresh("rotated"), "task_type": "regression"}
    manager = admin.rest("POST", "/api/managers", request)[1]["details"]["manager_id"]
    made = trained(admin, {"manager_id": manager})
    assert admin.rest("POST", f"/api/managers/{manager}/rotate-key", {})[0] == 200
    body = {"model_artifact_id": made["model_artifact_id"], "future": {"columns": WEATHER[:2], "data": [[110, 26]]}}
    _, submitted = admin.rest("POST", "/api/v1/ml/$predict", body)
    assert ended(admin, submitted["job_id"])["status"] == "completed"
    paths = [f"artifacts/{submitted['prediction_artifact_id']}", f"artifacts/{made['model_artifact_id']}"]
    paths += [f"jobs/{submitted['job_id']}"]
    assert [admin.rest("GET", f"/api/v1/{path}")[0] for path in paths] == [200, 200, 200]
    assert admin.rest("DELETE", f"/api/managers/{manager}")[0] == 200
    assert [admin.rest("GET", f"/api/v1/{path}")[0] for path in paths] == [404, 404, 404]


@pytest.mark.row("S1.5")
def test_the_system(admin: Caller) -> None:
    status, shown = admin.rest("GET", "/api/v1/system")
    assert status == 200
    assert set(shown) == {"current_time", "timezone", "python_version", "platform", "hostname"}
    answer = admin.grpc(SystemServiceStub, "GetSystem", system_pb2.GetSystemRequest())
    assert answer.hostname == shown["hostname"]


@pytest.mark.row("S1.3")
def test_a_job_loses_the_credential_that_is_revoked(stack: Stack, admin: Caller) -> None:
    status, made = admin.rest("POST", "/api-keys", {"name": fresh("revoked"), "permission_set": "full_access"})
    assert status == 201
    trainer = Caller(stack, made["key"])
    slow = {"estimator": "RandomForestRegressor", "parameters": {"n_estimators": 10_000}}
    body = {"config_id": config(admin, slow), "data": TRAINING}
    _, submitted = trainer.rest("POST", "/api/v1/ml/$train", body)
    assert admin.rest("POST", f"/api-keys/{made['id']}/revoke", {})[0] == 200
    job = ended(admin, submitted["job_id"])
    assert (job["status"], job["reason"]) == ("failed", "CREDENTIAL_REVOKED")
    assert admin.rest("GET", f"/api/v1/artifacts/{submitted['model_artifact_id']}")[0] == 404
