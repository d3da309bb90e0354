"""Who may train and predict, how often, and what it comes to: permissions, quotas, log, ledger and audit trail."""

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError
from ulid import ULID

from services.models.settings import ModelsSettings
from strongroom.auth.v1 import usage_pb2, usage_pb2_grpc
from strongroom.models.v1 import ml_pb2
from strongroom.models.v1.ml_pb2_grpc import MlServiceStub
from tests.callers import Caller, administrator
from tests.catalog import caller, fresh
from tests.ml_callers import TRAINING, config, ended, trained, with_set
from tests.ml_jobs import CASES, WEATHER, table
from tests.stack import Stack


@pytest.fixture(scope="module")
def admin(stack: Stack) -> Caller:
    return administrator(stack)


@pytest.fixture(scope="module")
def model(admin: Caller) -> dict[str, Any]:
    return trained(admin, {"target": "disease_cases"})


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
    over_grpc = ml_pb2.TrainRequest(config_id=model["config_id"], data=table(WEATHER, CASES))
    assert predictor.code(MlServiceStub, "Train", over_grpc) == "PERMISSION_DENIED"
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


def prediction(model: dict[str, Any]) -> dict[str, Any]:
    return {"model_artifact_id": model["model_artifact_id"], "future": {"columns": WEATHER[:2], "data": [[1, 2]]}}


@pytest.mark.row("S1.9")
@pytest.mark.parametrize(("kind", "per_second"), [("train", 1.0), ("predict", 0.5)])
def test_a_job_is_in_log_ledger_and_audit_trail_with_its_cost(
    stack: Stack, admin: Caller, model: dict[str, Any], kind: str, per_second: float
) -> None:
    """The stack's STRONGROOM_JOB_PRICES: 3600 for an hour of training, half of it for one of prediction."""
    somebody = with_set(stack, kind)
    body = {"config_id": model["config_id"], "data": TRAINING} if kind == "train" else prediction(model)
    _, submitted = somebody.rest("POST", f"/api/v1/ml/${kind}", body)
    job = ended(somebody, submitted["job_id"])
    assert job["seconds"] > 0
    assert job["cost_estimate"] == pytest.approx(job["seconds"] * per_second, abs=0.001)
    log = (stack.data_dir / "logs" / "models.log").read_text().splitlines()
    [line] = [json.loads(line) for line in log if '"ml_operation"' in line and submitted["job_id"] in line]
    assert (line["operation"], line["state"], line["principal"]) == (kind, "completed", job["created_by"])
    assert line["cost_estimate"] == pytest.approx(line["job_seconds"] * per_second, abs=0.001)
    assert line["key_prefix"]
    assert line["key_prefix"] in somebody.credential
    assert somebody.credential not in json.dumps(line)
    assert not any(value in json.dumps(line) for value in ("100.5", "rainfall"))
    used = ledger(somebody, kind)
    assert used.requests == 1
    assert used.job_seconds == pytest.approx(job["seconds"], abs=0.001)
    assert used.cost_estimate == pytest.approx(job["cost_estimate"], abs=0.001)
    _, shown = somebody.rest("GET", "/api/v1/usage?principal=self")
    [over_rest] = [line for line in shown["usage"] if line["usage_class"] == kind]
    assert over_rest["cost_estimate"] == used.cost_estimate
    _, trail = admin.rest("GET", f"/api/v1/audit/events?principal={job['created_by']}")
    assert any(event["method"].endswith(f"MlService/{kind.capitalize()}") for event in trail["events"])


@pytest.mark.row("S1.9")
@pytest.mark.parametrize("prices", [{"trian": 1}, {"train": -1}, {"train": float("nan")}, {"predict": float("inf")}])
def test_a_price_that_is_none_is_refused_at_the_start(prices: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ModelsSettings(job_prices=prices)


def ledger(who: Caller, kind: str) -> usage_pb2.Use:
    """The caller's line of that class, once it has the job; over gRPC."""
    deadline = time.monotonic() + 20
    while True:
        answer = who.grpc(usage_pb2_grpc.UsageServiceStub, "ListUsage", usage_pb2.ListUsageRequest(principal="self"))
        for line in answer.usage:
            if line.usage_class == kind and line.job_seconds > 0:
                return line
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)


@pytest.mark.row("S1.9")
@pytest.mark.parametrize(("limited", "free"), [("train", "predict"), ("predict", "train")])
def test_quotas_of_training_and_prediction_are_apart(
    stack: Stack, admin: Caller, model: dict[str, Any], limited: str, free: str
) -> None:
    quotas = [{"usage_class": limited, "requests": 1, "per": "day"}]
    request = {"name": fresh("quota"), "permission_set": "full_access", "quotas": quotas}
    status, made = admin.rest("POST", "/api-keys", request)
    assert status == 201, made
    somebody = Caller(stack, made["key"])
    bodies = {"train": {"config_id": model["config_id"], "data": TRAINING}, "predict": prediction(model)}
    assert somebody.rest("POST", f"/api/v1/ml/${limited}", bodies[limited])[0] == 202
    status, problem = somebody.rest("POST", f"/api/v1/ml/${limited}", bodies[limited])
    assert (status, problem["reason"]) == (429, "QUOTA_EXHAUSTED")
    assert somebody.rest("POST", f"/api/v1/ml/${free}", bodies[free])[0] == 202
