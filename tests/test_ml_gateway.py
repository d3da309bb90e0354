"""Training and prediction through the gateway, over REST and over gRPC."""

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from ulid import ULID

from strongroom.auth.v1 import api_keys_pb2, api_keys_pb2_grpc
from strongroom.models.v1 import configs_pb2, jobs_pb2, ml_artifacts_pb2, ml_pb2, system_pb2
from strongroom.models.v1.configs_pb2_grpc import ConfigServiceStub
from strongroom.models.v1.jobs_pb2_grpc import JobServiceStub
from strongroom.models.v1.ml_artifacts_pb2_grpc import MlArtifactServiceStub
from strongroom.models.v1.ml_pb2_grpc import MlServiceStub
from strongroom.models.v1.system_pb2_grpc import SystemServiceStub
from tests.callers import Caller, administrator
from tests.catalog import caller, fresh
from tests.ml_jobs import CASES, ENDED, WEATHER, table
from tests.stack import Stack

TRAINING = {"columns": WEATHER, "data": CASES}


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Caller:
    return administrator(stack)


def with_set(stack: Stack, permission_set: str) -> Caller:
    """Somebody whose key has a permission set."""
    request = api_keys_pb2.CreateApiKeyRequest(name=fresh("key"), permission_set=permission_set)
    made = administrator(stack).grpc(api_keys_pb2_grpc.ApiKeyServiceStub, "CreateApiKey", request)
    return Caller(stack, made.key)


def config(admin: Caller, data: dict[str, Any] | None = None, **fields: str) -> str:
    status, made = admin.rest("POST", "/api/v1/configs", {"name": fresh("config"), "data": data or {}, **fields})
    assert status == 201, made
    return str(made["id"])


def ended(admin: Caller, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 90
    while True:
        status, job = admin.rest("GET", f"/api/v1/jobs/{job_id}")
        assert status == 200, job
        if job["status"] in ENDED:
            shown: dict[str, Any] = job
            return shown
        assert time.monotonic() < deadline, job
        time.sleep(0.1)


@pytest.fixture(scope="module")
def model(admin: Caller) -> dict[str, Any]:
    """A trained model: what `$train` answered, and its config."""
    config_id = config(admin, {"target": "disease_cases"})
    status, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": config_id, "data": TRAINING})
    assert status == 202
    assert ended(admin, submitted["job_id"])["status"] == "completed"
    return {**submitted, "config_id": config_id}


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


@pytest.mark.row("S1.5")
def test_the_system(admin: Caller) -> None:
    status, shown = admin.rest("GET", "/api/v1/system")
    assert status == 200
    assert set(shown) == {"current_time", "timezone", "python_version", "platform", "hostname"}
    answer = admin.grpc(SystemServiceStub, "GetSystem", system_pb2.GetSystemRequest())
    assert answer.hostname == shown["hostname"]


@pytest.mark.row("S1.8")
def test_keys_for_training_do_not_predict_and_the_other_way_round(
    stack: Stack, admin: Caller, model: dict[str, Any]
) -> None:
    trainer, predictor = with_set(stack, "train"), with_set(stack, "predict")
    train = {"config_id": model["config_id"], "data": TRAINING}
    predict = {
        "model_artifact_id": model["model_artifact_id"],
        "future": {"columns": WEATHER[:2], "data": [[110.0, 26.0]]},
    }
    status, problem = predictor.rest("POST", "/api/v1/ml/$train", train)
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert "ml.train" in problem["detail"]
    status, problem = trainer.rest("POST", "/api/v1/ml/$predict", predict)
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert "ml.predict" in problem["detail"]
    status, submitted = predictor.rest("POST", "/api/v1/ml/$predict", predict)
    assert status == 202
    assert ended(predictor, submitted["job_id"])["status"] == "completed"
    assert predictor.rest("GET", f"/api/v1/artifacts/{submitted['prediction_artifact_id']}")[0] == 200
    status, submitted = trainer.rest("POST", "/api/v1/ml/$train", train)
    assert status == 202
    assert ended(trainer, submitted["job_id"])["status"] == "completed"


@pytest.mark.row("S1.8")
def test_a_model_is_trained_and_used_by_whoever_may_write_and_read_it(stack: Stack, admin: Caller) -> None:
    name = fresh("scoped")
    config_id = config(admin, {"model_name": name})
    everything = ("ml.*", "configs.*", "artifacts.*", "jobs.*")
    elsewhere = caller(stack, ("allow", everything, ["**"]), ("allow", ["models.*"], ["managers/default/models/other"]))
    status, problem = elsewhere.rest("POST", "/api/v1/ml/$train", {"config_id": config_id, "data": TRAINING})
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    assert f"models.write on managers/default/models/{name}" in problem["detail"]
    _, submitted = admin.rest("POST", "/api/v1/ml/$train", {"config_id": config_id, "data": TRAINING})
    ended(admin, submitted["job_id"])
    artifact = submitted["model_artifact_id"]
    body = {"model_artifact_id": artifact, "future": {"columns": WEATHER[:2], "data": []}}
    status, problem = elsewhere.rest("POST", "/api/v1/ml/$predict", body)
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    status, problem = elsewhere.rest("DELETE", f"/api/v1/artifacts/{artifact}")
    assert (status, problem["reason"]) == (403, "PERMISSION_MISSING")
    # What somebody says about an artifact makes no model of it.
    about = {"model_type": "x", "features": WEATHER[:2], "runner": "sklearn", "config": {}, "target": "y"}
    _, forged = elsewhere.rest("POST", "/api/v1/artifacts", {"data": about})
    body["model_artifact_id"] = forged["id"]
    assert elsewhere.rest("POST", "/api/v1/ml/$predict", body)[1]["reason"] == "ARTIFACT_NO_MODEL"


@pytest.mark.row("S1.8")
def test_lists_show_what_the_caller_may_see(stack: Stack, admin: Caller, model: dict[str, Any]) -> None:
    reads = ("configs.read", "jobs.read", "artifacts.read")
    seen = [f"configs/{model['config_id']}", f"jobs/{model['job_id']}", f"artifacts/ml/{model['model_artifact_id']}"]
    narrow = caller(stack, ("allow", reads, seen))
    for path, shown in (
        ("configs", model["config_id"]),
        ("jobs", model["job_id"]),
        ("artifacts", model["model_artifact_id"]),
    ):
        status, found = narrow.rest("GET", f"/api/v1/{path}?page_size=1000")
        assert status == 200
        assert [item["id"] for item in found] == [shown]
    assert narrow.rest("GET", f"/api/v1/jobs/{ULID()}")[0] == 403


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


@pytest.mark.row("S1.9")
def test_jobs_are_in_log_ledger_and_audit_trail(stack: Stack, admin: Caller, model: dict[str, Any]) -> None:
    trainer = with_set(stack, "train")
    body = {"config_id": model["config_id"], "data": TRAINING}
    _, submitted = trainer.rest("POST", "/api/v1/ml/$train", body)
    job = ended(trainer, submitted["job_id"])
    assert job["seconds"] > 0
    log = (stack.data_dir / "logs" / "models.log").read_text().splitlines()
    [line] = [json.loads(line) for line in log if '"ml_operation"' in line and submitted["job_id"] in line]
    assert (line["operation"], line["state"], line["principal"]) == ("train", "completed", job["created_by"])
    assert line["key_prefix"]
    assert line["key_prefix"] in trainer.credential
    assert not any(str(value) in json.dumps(line) for value in ("100.5", "rainfall"))
    deadline = time.monotonic() + 10
    while True:
        _, used = trainer.rest("GET", "/api/v1/usage?principal=self")
        [trained] = [use for use in used["usage"] if use["usage_class"] == "train"] or [{}]
        if trained.get("job_seconds", 0) > 0:
            assert trained["requests"] == 1
            break
        assert time.monotonic() < deadline, used
        time.sleep(0.2)
    _, events_ = admin.rest("GET", f"/api/v1/audit/events?principal={job['created_by']}")
    assert any(event["method"].endswith("MlService/Train") for event in events_["events"])


@pytest.mark.row("S1.9")
def test_quotas_of_training_and_prediction_are_apart(stack: Stack, admin: Caller, model: dict[str, Any]) -> None:
    request = {
        "name": fresh("quota"),
        "permission_set": "full_access",
        "quotas": [{"usage_class": "train", "requests": 1, "per": "day"}],
    }
    status, made = admin.rest("POST", "/api-keys", request)
    assert status == 201, made
    limited = Caller(stack, made["key"])
    body = {"config_id": model["config_id"], "data": TRAINING}
    assert limited.rest("POST", "/api/v1/ml/$train", body)[0] == 202
    status, problem = limited.rest("POST", "/api/v1/ml/$train", body)
    assert (status, problem["reason"]) == (429, "QUOTA_EXHAUSTED")
    future = {"columns": WEATHER[:2], "data": [[1, 2]]}
    body = {"model_artifact_id": model["model_artifact_id"], "future": future}
    assert limited.rest("POST", "/api/v1/ml/$predict", body)[0] == 202
