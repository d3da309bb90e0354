"""Managers through the gateway, over REST as existing clients of the secure model manager call it, and gRPC.

The paths, fields and examples are those of that product's own manual.
"""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save_file

from strongroom.auth.v1 import info_pb2, info_pb2_grpc
from strongroom.models.v1 import managers_pb2 as pb
from strongroom.models.v1 import managers_pb2_grpc
from tests.models_installation import refused
from tests.stack import Stack
from tests.test_gateway_rest import Answer, admin, assert_problem, call


def create(stack: Stack, **config: Any) -> str:
    body = {"task_type": "regression", "model_path": "./models/project1", **config}
    answer = admin(stack, "POST", "/api/managers", body)
    assert answer.status == 201, answer.body
    return str(answer.json["details"]["manager_id"])


def curl(stack: Stack, path: str, *arguments: str, key: str = "") -> tuple[int, Any]:
    """A plain curl, as a person types it."""
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-H", f"X-API-Key: {key or stack.admin_key}", *arguments]
    done = subprocess.run([*command, f"{stack.url}{path}"], capture_output=True, timeout=120, check=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body)


def upload(stack: Stack, manager: str, file: Path) -> Any:
    status, answer = curl(stack, f"/api/managers/{manager}/upload-model", "-F", f"model_file=@{file}")
    assert status == 201, answer
    return answer


def key_with(stack: Stack, **rights: Any) -> str:
    """An API key with these permissions and scopes, or grants."""
    answer = admin(stack, "POST", "/api-keys", {"name": f"managers {uuid.uuid4()}", **rights})
    assert answer.status == 201, answer.body
    return str(answer.json["key"])


@pytest.fixture
def manager(stack: Stack) -> str:
    return create(stack)


@pytest.fixture
def stub(stack: Stack) -> Iterator[Any]:
    with grpc.insecure_channel(stack.target) as channel:
        yield managers_pb2_grpc.ManagerServiceStub(channel)


@pytest.fixture
def metadata(stack: Stack) -> list[tuple[str, str]]:
    return [("x-api-key", stack.admin_key)]


def weights(folder: Path, name: str = "random_forest_v1.pkl", size: int = 300_000) -> Path:
    file = folder / name
    file.write_bytes(os.urandom(size))
    return file


@pytest.mark.row("S0.1")
def test_a_manager_is_created(stack: Stack) -> None:
    body = {
        "model_path": "./models/project1",
        "task_type": "regression",
        "enable_encryption": True,
        "use_scrypt": True,
        "primary_metric": "mse",
    }
    answer = admin(stack, "POST", "/api/managers", body)
    assert answer.status == 201
    manager = answer.json["details"]["manager_id"]
    assert str(uuid.UUID(manager)) == manager
    message = f"Manager created with ID: {manager}"
    assert answer.json == {"success": True, "message": message, "details": {"manager_id": manager}}


@pytest.mark.row("S0.1")
def test_a_task_type_is_all_a_manager_needs(stack: Stack) -> None:
    answer = admin(stack, "POST", "/api/managers", {"task_type": "anomaly_detection", "primary_metric": None})
    shown = admin(stack, "GET", f"/api/managers/{answer.json['details']['manager_id']}").json
    defaults = {
        "model_path": "./models",
        "task_type": "anomaly_detection",
        "enable_encryption": True,
        "key_iterations": 200_000,
        "hash_algorithm": "sha512",
        "use_scrypt": True,
        "enable_quantization": False,
        "primary_metric": "",
    }
    assert {name: shown[name] for name in defaults} == defaults


@pytest.mark.row("S0.1")
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task_type": "forecasting"},
        {"task_type": "REGRESSION"},
        {"task_type": "regression", "key_iterations": 1},
        {"task_type": "regression", "key_iterations": 2_000_000_000},
        {"task_type": "regression", "hash_algorithm": "md5"},
        {"task_type": "regression", "primary_metric": "a b"},
        {"task_type": "regression", "model_path": "a" * 600},
        {"task_type": "regression", "manager_id": "a/b"},
    ],
)
def test_what_no_manager_can_be_is_400(stack: Stack, body: dict[str, Any]) -> None:
    assert_problem(admin(stack, "POST", "/api/managers", body), 400, "FIELD_INVALID")


@pytest.mark.row("S0.10")
@pytest.mark.parametrize("model_path", ["/etc", "../outside", "./models/../../x", "models//x", "C:\\models"])
def test_a_model_path_leads_nowhere_else(stack: Stack, model_path: str) -> None:
    answer = admin(stack, "POST", "/api/managers", {"task_type": "regression", "model_path": model_path})
    assert_problem(answer, 400, "PATH_INVALID")


@pytest.mark.row("S0.1")
def test_a_manager_may_be_named_once(stack: Stack) -> None:
    name = f"fraud-{uuid.uuid4().hex}"
    assert create(stack, manager_id=name) == name
    answer = admin(stack, "POST", "/api/managers", {"task_type": "regression", "manager_id": name})
    assert_problem(answer, 409, "MANAGER_EXISTS")


@pytest.mark.row("S0.2")
def test_managers_are_listed_as_one_map(stack: Stack, tmp_path: Path) -> None:
    one, other = create(stack), create(stack, task_type="classification", model_path="./models/project2")
    upload(stack, one, weights(tmp_path))
    listed = admin(stack, "GET", "/api/managers").json
    assert listed[one] == {
        "encryption_enabled": True,
        "model_path": "./models/project1",
        "task_type": "REGRESSION",
        "models_count": 1,
        "best_model": None,
    }
    assert listed[other]["task_type"] == "CLASSIFICATION"
    assert listed[other]["models_count"] == 0
    assert listed["default"]["task_type"] == "REGRESSION"


@pytest.mark.row("S0.2")
def test_a_manager_is_deleted_with_all_that_is_in_it(stack: Stack, manager: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path))
    answer = admin(stack, "DELETE", f"/api/managers/{manager}")
    assert answer.status == 200
    message = f"Manager {manager} deleted successfully"
    assert answer.json == {"success": True, "message": message, "details": {}}
    assert manager not in admin(stack, "GET", "/api/managers").json
    for verb, path, body in (
        ("DELETE", f"/api/managers/{manager}", None),
        ("GET", f"/api/managers/{manager}", None),
        ("GET", f"/api/managers/{manager}/models", None),
        ("GET", f"/api/v1/managers/{manager}/models/random_forest_v1/versions", None),
        ("POST", f"/api/managers/{manager}/models/save", {"model_name": "random_forest_v1"}),
        ("POST", f"/api/managers/{manager}/models/load", {"filepath": "random_forest_v1.pkl"}),
        ("POST", f"/api/managers/{manager}/verify?filepath=random_forest_v1.pkl", None),
    ):
        assert_problem(admin(stack, verb, path, body), 404, "MANAGER_NOT_FOUND")
    status, _ = curl(stack, f"/api/managers/{manager}/upload-model", "-F", f"model_file=@{weights(tmp_path)}")
    assert status == 404


@pytest.mark.row("S0.9")
def test_anyone_may_know_how_many_managers_there_are(stack: Stack) -> None:
    info = call(stack, "GET", "/").json
    assert {"name", "version", "description", "docs_url", "total_managers"} <= set(info)
    create(stack)
    deadline = time.monotonic() + 20
    while call(stack, "GET", "/").json["total_managers"] < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert call(stack, "GET", "/").json["total_managers"] >= 2


@pytest.mark.row("S3.4")
def test_anyone_may_know_that_the_registry_works_and_how_many_models_it_has(stack: Stack, tmp_path: Path) -> None:
    before = _registry_health(stack)
    upload(stack, create(stack), weights(tmp_path))
    deadline = time.monotonic() + 20
    while (now := _registry_health(stack))["models"] < before["models"] + 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert now["models"] >= before["models"] + 1
    assert now["uptime_s"] >= before["uptime_s"]
    with grpc.insecure_channel(stack.target) as channel:
        answer = info_pb2_grpc.InfoServiceStub(channel).GetRegistryHealth(info_pb2.GetRegistryHealthRequest())
    assert answer.status == "ok"
    assert answer.models >= now["models"]
    assert answer.uptime_s - now["uptime_s"] < 60


def _registry_health(stack: Stack) -> dict[str, Any]:
    answer = call(stack, "GET", "/api/health")
    assert answer.status == 200
    assert answer.json.keys() == {"status", "uptime_s", "models"}
    assert answer.json["status"] == "ok"
    return dict(answer.json)


@pytest.mark.row("S3.4")
@pytest.mark.parametrize("path", ["/env", "/api/env", "/api/v1/env"])
def test_nothing_shows_the_environment(stack: Stack, path: str) -> None:
    assert_problem(admin(stack, "GET", path), 404, "PATH_UNKNOWN")


@pytest.mark.row("S0.2")
def test_the_default_manager_stays(stack: Stack) -> None:
    assert_problem(admin(stack, "DELETE", "/api/managers/default"), 400, "MANAGER_PERMANENT")


@pytest.mark.row("S0.3")
def test_the_newest_upload_is_saved_where_clients_expect_it(stack: Stack, manager: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path))
    body = {"model_name": "random_forest_v1", "filepath": None, "compression_level": 5}
    answer = admin(stack, "POST", f"/api/managers/{manager}/models/save", body)
    assert answer.status == 200, answer.body
    assert answer.json == {
        "success": True,
        "message": "Model random_forest_v1 saved successfully",
        "details": {
            "model_name": "random_forest_v1",
            "filepath": "./models/project1/random_forest_v1.pkl",
            "encrypted": True,
        },
    }


@pytest.mark.row("S0.3")
def test_a_model_is_saved_at_a_path_of_ones_own(stack: Stack, manager: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path))
    for given in ("deep/er/model.bin", "./models/project1/deep/er/model.bin"):
        saved = admin(
            stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": "random_forest_v1", "filepath": given}
        )
        assert saved.json["details"]["filepath"] == "./models/project1/deep/er/model.bin"
        assert load(stack, manager, given).json["details"]["model_name"] == "random_forest_v1"


def load(stack: Stack, manager: str, filepath: str, **body: Any) -> Answer:
    return admin(stack, "POST", f"/api/managers/{manager}/models/load", {"filepath": filepath, **body})


@pytest.mark.row("S0.3")
def test_what_was_never_uploaded_cannot_be_saved(stack: Stack, manager: str) -> None:
    answer = admin(stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": "nothing"})
    assert_problem(answer, 404, "MODEL_NOT_FOUND")


@pytest.mark.row("S0.3")
@pytest.mark.parametrize("level", [10, 100])
def test_a_compression_level_has_one_digit(stack: Stack, manager: str, level: int) -> None:
    body = {"model_name": "x", "compression_level": level}
    assert_problem(admin(stack, "POST", f"/api/managers/{manager}/models/save", body), 400, "FIELD_INVALID")


@pytest.mark.row("S0.12")
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_manager_that_quantizes_stores_an_int8_copy(stack: Stack, tmp_path: Path, suffix: str) -> None:
    manager = create(stack, enable_quantization=True)
    layer = np.random.default_rng(1).normal(size=(300, 256)).astype(np.float32)
    file = tmp_path / f"scorer.{suffix}"
    save_file({"w": layer}, file) if suffix == "safetensors" else np.savez(file, w=layer)
    upload(stack, manager, file)
    path = f"/api/managers/{manager}/models/save"
    body = {"model_name": "scorer", "filepath": f"scorer.{suffix}"}
    details = admin(stack, "POST", path, body).json["details"]
    copy = details["quantized"]
    assert copy["filepath"] == "./models/project1/scorer.int8.safetensors"
    assert copy["tensors_quantized"] == 1
    assert copy["size_bytes"] < 0.27 * copy["original_size_bytes"]
    assert 0 < copy["relative_error"] < 0.01
    files = f"/api/v1/managers/{manager}/models/scorer/versions/latest/files"
    assert admin(stack, "GET", f"{files}/scorer.{suffix}").body == file.read_bytes()
    stored = load_tensors(admin(stack, "GET", f"{files}/scorer.int8.safetensors").body)
    error = np.abs(stored["w"] * stored["w.scale"][:, None] - layer).max()
    assert error == pytest.approx(copy["max_error"], rel=1e-3)
    for saved in (body["filepath"], copy["filepath"]):
        assert load(stack, manager, saved).json["details"]["model_name"] == "scorer"
    # Once more: the copy is there already.
    assert admin(stack, "POST", path, body).json["details"] == details
    versions = admin(stack, "GET", f"/api/v1/managers/{manager}/models/scorer/versions").json["versions"]
    assert len(versions) == 2


@pytest.mark.row("S0.12")
@pytest.mark.parametrize(("name", "data"), [("x.pkl", b"pickle"), ("x.npz", b"no archive"), ("x.safetensors", b"")])
def test_what_cannot_be_quantized_is_saved_as_it_is(stack: Stack, tmp_path: Path, name: str, data: bytes) -> None:
    manager = create(stack, enable_quantization=True)
    (tmp_path / name).write_bytes(data)
    upload(stack, manager, tmp_path / name)
    saved = admin(stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": "x"})
    assert set(saved.json["details"]) == {"model_name", "filepath", "encrypted"}


@pytest.mark.row("S0.4")
def test_a_model_is_loaded_by_its_path(stack: Stack, manager: str, tmp_path: Path) -> None:
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    assert load(stack, manager, path).json == {
        "success": True,
        "message": "Model random_forest_v1 loaded successfully",
        "details": {"model_name": "random_forest_v1", "is_best_model": False},
    }


@pytest.mark.row("S0.4")
def test_an_unknown_file_or_manager_is_404(stack: Stack, manager: str) -> None:
    assert_problem(load(stack, manager, "unknown.pkl"), 404, "PATH_NOT_FOUND")
    assert_problem(load(stack, "unknown", "unknown.pkl"), 404, "MANAGER_NOT_FOUND")
    path = f"/api/managers/{manager}/verify?filepath=unknown.pkl"
    assert_problem(admin(stack, "POST", path), 404, "PATH_NOT_FOUND")


@pytest.mark.row("S0.5")
def test_models_are_listed(stack: Stack, manager: str, tmp_path: Path) -> None:
    assert admin(stack, "GET", f"/api/managers/{manager}/models").json == {"models": [], "best_model": None}
    for name in ("xgboost_v2.json", "random_forest_v1.pkl"):
        upload(stack, manager, weights(tmp_path, name, 1000))
    listed = admin(stack, "GET", f"/api/managers/{manager}/models").json
    assert listed == {"models": ["random_forest_v1", "xgboost_v2"], "best_model": None}


def record(stack: Stack, manager: str, model: str, version: str = "latest", **metrics: Any) -> Answer:
    path = f"/api/v1/managers/{manager}/models/{model}/versions/{version}/metrics"
    return admin(stack, "PUT", path, {"metrics": metrics})


@pytest.mark.row("S0.5")
@pytest.mark.parametrize(
    ("metric", "best"),
    [("mse", "low"), ("mae", "low"), ("rmse", "low"), ("log_loss", "low"), ("accuracy", "high"), ("r2", "high")],
)
def test_the_best_model_follows_the_primary_metric(stack: Stack, tmp_path: Path, metric: str, best: str) -> None:
    manager = create(stack, primary_metric=metric)
    for name, value in (("low", 0.25), ("high", 0.75), ("none", None)):
        upload(stack, manager, weights(tmp_path, f"{name}.pkl", 10))
        if value is not None:
            assert record(stack, manager, name, **{metric: value, "other": 7}).json["metrics"][metric] == value
    assert admin(stack, "GET", f"/api/managers/{manager}/models").json["best_model"] == best
    assert admin(stack, "GET", "/api/managers").json[manager]["best_model"] == best
    for name in ("low", "high", "none"):
        saved = admin(stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": name})
        loaded = load(stack, manager, saved.json["details"]["filepath"])
        assert loaded.json["details"] == {"model_name": name, "is_best_model": name == best}


@pytest.mark.row("S0.5")
def test_the_best_version_of_a_model_counts_and_goes_with_it(stack: Stack, tmp_path: Path) -> None:
    manager = create(stack, primary_metric="mse")
    for name, value in (("first", 0.5), ("second", 0.1), ("first", 0.9)):
        upload(stack, manager, weights(tmp_path, f"{name}.pkl", 10))
        record(stack, manager, name, mse=value)
    models = f"/api/managers/{manager}/models"
    assert admin(stack, "GET", models).json["best_model"] == "second"
    [version] = admin(stack, "GET", f"/api/v1/managers/{manager}/models/second/versions").json["versions"]
    path = f"/api/v1/managers/{manager}/models/second/versions/{version['version']}"
    assert admin(stack, "GET", f"{path}/metrics").json == {"metrics": {"mse": 0.1}}
    assert admin(stack, "DELETE", path).status == 200
    assert admin(stack, "GET", models).json == {"models": ["first"], "best_model": "first"}


@pytest.mark.row("S0.5")
def test_a_best_model_that_the_caller_may_not_see_is_not_told(stack: Stack, tmp_path: Path) -> None:
    manager = create(stack, primary_metric="r2")
    for name, value in (("shown", 0.5), ("hidden", 0.9)):
        upload(stack, manager, weights(tmp_path, f"{name}.pkl", 10))
        record(stack, manager, name, r2=value)
    allow = {"effect": "allow", "permissions": ["models.read"], "resources": ["**"]}
    deny = {"effect": "deny", "permissions": ["models.read"], "resources": [f"managers/{manager}/models/hidden"]}
    headers = {"X-API-Key": key_with(stack, grants=[allow, deny])}
    listed = call(stack, "GET", f"/api/managers/{manager}/models", headers).json
    assert listed == {"models": ["shown"], "best_model": "shown"}
    assert call(stack, "GET", f"/api/managers/{manager}", headers).json["best_model"] == "shown"


@pytest.mark.row("S0.5")
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_metric_is_a_number(stack: Stack, manager: str, tmp_path: Path, value: str) -> None:
    upload(stack, manager, weights(tmp_path, "m.pkl", 10))
    assert_problem(record(stack, manager, "m", mse=value), 400, "METRIC_INVALID")
    assert_problem(record(stack, manager, "m", **{"a b": 1.0}), 400, "FIELD_INVALID")
    assert_problem(record(stack, manager, "m"), 400, "FIELD_INVALID")
    assert_problem(record(stack, manager, "m", "v9", mse=1.0), 404, "VERSION_NOT_FOUND")


@pytest.mark.row("S0.6")
def test_an_intact_file_is_valid(stack: Stack, manager: str, tmp_path: Path) -> None:
    path = upload(stack, manager, weights(tmp_path))["details"]["filepath"]
    answer = admin(stack, "POST", f"/api/managers/{manager}/verify?filepath={path}")
    assert answer.json == {"filepath": path, "is_valid": True, "encryption_status": "encrypted"}


@pytest.mark.row("S0.6")
def test_a_file_to_verify_is_named(stack: Stack, manager: str) -> None:
    assert_problem(admin(stack, "POST", f"/api/managers/{manager}/verify"), 400, "FIELD_INVALID")


@pytest.mark.row("S0.8")
def test_a_plain_curl_uploads_a_model(stack: Stack, manager: str, tmp_path: Path) -> None:
    file = weights(tmp_path, size=9_000_000)
    answer = upload(stack, manager, file)
    name = answer["details"]["filepath"].removeprefix("./models/project1/")
    stem, _, stamp = name.removesuffix(".pkl").rpartition("_")
    assert stem == "random_forest_v1"
    assert stamp.isdecimal()
    message = f"Model {name} uploaded successfully and queued for loading"
    details = {"filepath": f"./models/project1/{name}", "model_name": "random_forest_v1"}
    assert answer == {"success": True, "message": message, "details": details}
    stored = call(
        stack,
        "GET",
        f"/api/v1/managers/{manager}/models/random_forest_v1/versions/latest/files/random_forest_v1.pkl",
        {"X-API-Key": stack.admin_key},
    )
    assert stored.body == file.read_bytes()


@pytest.mark.row("S0.8")
def test_two_uploads_of_a_second_have_paths_of_their_own(stack: Stack, manager: str, tmp_path: Path) -> None:
    file = weights(tmp_path, size=10)
    paths = {upload(stack, manager, file)["details"]["filepath"] for _ in range(4)}
    assert len(paths) == 4
    assert all(load(stack, manager, path).status == 200 for path in paths)


@pytest.mark.row("S0.8")
def test_a_file_is_uploaded_without_a_form_as_well(stack: Stack, manager: str, tmp_path: Path) -> None:
    arguments = ("-X", "POST", "-H", "content-type: application/octet-stream", "-T", str(weights(tmp_path)))
    status, answer = curl(stack, f"/api/managers/{manager}/upload-model?filename=plain.bin", *arguments)
    assert (status, answer["details"]["model_name"]) == (201, "plain")


@pytest.mark.row("S0.10")
@pytest.mark.parametrize("filename", ["../../etc/passwd", "/etc/passwd", "..", "a\\b.pkl", ".pkl"])
def test_a_filename_that_leads_elsewhere_is_400(stack: Stack, manager: str, filename: str, tmp_path: Path) -> None:
    escaped = filename.replace("\\", "\\\\")
    form = f'model_file=@{weights(tmp_path, "x", 10)};filename="{escaped}"'
    status, answer = curl(stack, f"/api/managers/{manager}/upload-model", "-F", form)
    assert (status, answer["reason"]) == (400, "PATH_INVALID")
    assert admin(stack, "GET", f"/api/managers/{manager}/models").json["models"] == []


@pytest.mark.row("S0.10")
@pytest.mark.parametrize("path", ["../x.pkl", "/etc/passwd", "a/../../x", "./models/project1/../x", "a\\b", "", "a//b"])
def test_a_path_that_leads_elsewhere_is_400(stack: Stack, manager: str, path: str, tmp_path: Path) -> None:
    upload(stack, manager, weights(tmp_path, size=10))
    reason = "PATH_INVALID" if path else "FIELD_INVALID"
    assert_problem(load(stack, manager, path), 400, reason)
    body = {"model_name": "random_forest_v1", "filepath": path or "/"}
    assert_problem(admin(stack, "POST", f"/api/managers/{manager}/models/save", body), 400, "PATH_INVALID")


@pytest.mark.row("S0.8")
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"x"),
        ("multipart/form-data; boundary=b", b""),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="model_file"; filename="cut.pkl"\r\n\r\nhalf of it',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="x.pkl"\r\n\r\nx\r\n--b--\r\n',
        ),
    ],
)
def test_half_a_form_is_400_and_leaves_nothing(stack: Stack, manager: str, content_type: str, body: bytes) -> None:
    headers = {"X-API-Key": stack.admin_key, "content-type": content_type}
    answer = call(stack, "POST", f"/api/managers/{manager}/upload-model", headers, body)
    assert_problem(answer, 400, "FORM_INVALID")
    assert admin(stack, "GET", f"/api/managers/{manager}/models").json["models"] == []


@pytest.mark.row("S0.5")
@pytest.mark.row("S0.8")
def test_a_caller_sees_and_writes_only_what_its_grants_name(stack: Stack, manager: str, tmp_path: Path) -> None:
    for name in ("own.pkl", "hidden.pkl"):
        upload(stack, manager, weights(tmp_path, name, 10))
    for name in ("own", "hidden"):
        saved = admin(stack, "POST", f"/api/managers/{manager}/models/save", {"model_name": name})
        assert saved.status == 200
    key = key_with(stack, permissions=["models.read", "models.write"], scopes=[f"managers/{manager}/models/own"])
    headers = {"X-API-Key": key}
    assert call(stack, "GET", f"/api/managers/{manager}/models", headers).json["models"] == ["own"]
    assert manager not in call(stack, "GET", "/api/managers", headers).json
    for path, status in (("own.pkl", 200), ("hidden.pkl", 404), ("unknown.pkl", 404)):
        body = json.dumps({"filepath": path}).encode()
        assert call(stack, "POST", f"/api/managers/{manager}/models/load", headers, body).status == status
        assert call(stack, "POST", f"/api/managers/{manager}/verify?filepath={path}", headers).status == status
    for name, status in (("own.pkl", 201), ("hidden.pkl", 403), ("own2.pkl", 403)):
        form = ("-F", f"model_file=@{weights(tmp_path, name, 10)}")
        assert curl(stack, f"/api/managers/{manager}/upload-model", *form, key=key)[0] == status, name
    for verb, path, reason in (
        ("DELETE", f"/api/managers/{manager}", "PERMISSION_MISSING"),
        ("GET", f"/api/managers/{manager}", "PERMISSION_MISSING"),
        ("POST", "/api/managers", "PERMISSION_MISSING"),
    ):
        assert_problem(call(stack, verb, path, headers, b'{"task_type": "regression"}'), 403, reason)
    assert admin(stack, "GET", f"/api/managers/{manager}/models").json["models"] == ["hidden", "own"]


@pytest.mark.row("S0.2")
def test_who_may_not_delete_one_model_may_not_delete_its_manager(stack: Stack, manager: str) -> None:
    allow = {"effect": "allow", "permissions": ["models.*"], "resources": ["**"]}
    deny = {"effect": "deny", "permissions": ["models.delete"], "resources": [f"managers/{manager}/models/kept"]}
    headers = {"X-API-Key": key_with(stack, grants=[allow, deny])}
    assert_problem(call(stack, "DELETE", f"/api/managers/{manager}", headers), 403, "PERMISSION_MISSING")
    headers = {"X-API-Key": key_with(stack, grants=[allow])}
    assert call(stack, "DELETE", f"/api/managers/{manager}", headers).status == 200


@pytest.mark.row("S0.2")
@pytest.mark.row("S0.3")
def test_everything_works_over_grpc(stack: Stack, stub: Any, metadata: list[tuple[str, str]], tmp_path: Path) -> None:
    def ask(method: Any, request: Any) -> Any:
        return method(request, metadata=metadata, timeout=30)

    created = ask(stub.CreateManager, pb.CreateManagerRequest(task_type="clustering", enable_encryption=True))
    manager = created.details.manager_id

    def messages() -> Iterator[pb.UploadModelRequest]:
        first = pb.UploadModelRequest(manager_id=manager, filename="kmeans.npz")
        first.body.data = b"first, "
        yield first
        more = pb.UploadModelRequest()
        more.body.data = b"second"
        yield more

    uploaded = ask(stub.UploadModel, messages())
    assert uploaded.details.model_name == "kmeans"
    saved = ask(stub.SaveModel, pb.SaveModelRequest(manager_id=manager, model_name="kmeans", filepath="k.npz"))
    assert saved.details.filepath == "./models/k.npz"
    for path in (saved.details.filepath, uploaded.details.filepath):
        loaded = ask(stub.LoadModel, pb.LoadModelRequest(manager_id=manager, filepath=path))
        assert (loaded.details.model_name, loaded.details.is_best_model) == ("kmeans", False)
        checked = ask(stub.VerifyModel, pb.VerifyModelRequest(manager_id=manager, filepath=path))
        assert (checked.is_valid, checked.encryption_status) == (True, "encrypted")
    names = ask(stub.ListModelNames, pb.ListModelNamesRequest(manager_id=manager))
    assert (list(names.models), names.best_model.WhichOneof("kind")) == (["kmeans"], "null_value")
    shown = ask(stub.GetManager, pb.GetManagerRequest(manager_id=manager))
    assert (shown.task_type, shown.models_count) == ("clustering", 1)
    page = ask(stub.ListManagers, pb.ListManagersRequest(page_size=1))
    assert len(page.managers) == 1
    assert page.next_page_token == page.managers[0].manager_id
    assert ask(stub.MapManagers, pb.MapManagersRequest())[manager]["task_type"] == "CLUSTERING"
    assert ask(stub.DeleteManager, pb.DeleteManagerRequest(manager_id=manager)).success
    with refused(grpc.StatusCode.NOT_FOUND, "MANAGER_NOT_FOUND"):
        ask(stub.GetManager, pb.GetManagerRequest(manager_id=manager))
