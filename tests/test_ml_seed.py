"""The workflow of the guide that this API comes from: its own curl commands, as they stand there, and its answers."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stack import RunningStack, Stack

# The guide's keys are bare: both may use the product.
KEYS = "sk_ml_train_abc123,sk_ml_predict_xyz789"
GUIDE_ORIGIN = "http://127.0.0.1:8000"
# The commands of the guide in its order, word for word; what its server made up is in braces.
HEALTH = "curl http://127.0.0.1:8000/health"
NO_KEY = "curl http://127.0.0.1:8000/api/v1/configs"
SYSTEM = """curl -H "X-API-Key: sk_ml_train_abc123" \\
  http://127.0.0.1:8000/api/v1/system"""
CONFIG = """curl -X POST http://127.0.0.1:8000/api/v1/configs \\
  -H "X-API-Key: sk_ml_train_abc123" \\
  -H "Content-Type: application/json" \\
  -d '{
    "id": "01K7CXYHJ7BR4E87VVTG8FNBMA",
    "name": "secure_disease_model",
    "data": {}
  }'"""
TRAIN = """curl -X POST http://127.0.0.1:8000/api/v1/ml/\\$train \\
  -H "X-API-Key: sk_ml_train_abc123" \\
  -H "Content-Type: application/json" \\
  -d '{
    "config_id": "01K7CXYHJ7BR4E87VVTG8FNBMA",
    "data": {
      "columns": ["rainfall", "mean_temperature", "disease_cases"],
      "data": [
        [100.5, 25.3, 12],
        [85.2, 27.1, 8],
        [120.8, 24.5, 15],
        [95.3, 26.2, 10],
        [110.0, 26.0, 13],
        [75.5, 28.0, 6],
        [130.2, 23.8, 18],
        [88.9, 27.5, 9]
      ]
    }
  }'"""
TRAIN_JOB = """curl -H "X-API-Key: sk_ml_train_abc123" \\
  http://127.0.0.1:8000/api/v1/jobs/01K7CXYHJ7BR4E87VVTG8FNBMB"""
MODEL = """curl -H "X-API-Key: sk_ml_train_abc123" \\
  http://127.0.0.1:8000/api/v1/artifacts/01K7CXYHJ7BR4E87VVTG8FNBMC"""
PREDICT = """curl -X POST http://127.0.0.1:8000/api/v1/ml/\\$predict \\
  -H "X-API-Key: sk_ml_predict_xyz789" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model_artifact_id": "01K7CXYHJ7BR4E87VVTG8FNBMC",
    "historic": {
      "columns": ["rainfall", "mean_temperature"],
      "data": []
    },
    "future": {
      "columns": ["rainfall", "mean_temperature"],
      "data": [
        [110.0, 26.0],
        [90.0, 28.0],
        [125.0, 24.0],
        [80.0, 29.0]
      ]
    }
  }'"""
PREDICT_JOB = """curl -H "X-API-Key: sk_ml_predict_xyz789" \\
  http://127.0.0.1:8000/api/v1/jobs/01K7CXYHJ7BR4E87VVTG8FNBMD"""
PREDICTIONS = """curl -H "X-API-Key: sk_ml_predict_xyz789" \\
  http://127.0.0.1:8000/api/v1/artifacts/01K7CXYHJ7BR4E87VVTG8FNBME"""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that is started with the guide's keys, under the guide's name for them."""
    with RunningStack(tmp_path_factory.mktemp("guide") / "data", CHAPKIT_API_KEYS=KEYS) as stack:
        yield stack


class Shell:
    """Types the guide's commands; ids that its server made up are replaced by those of ours."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._ids: dict[str, str] = {}

    def rename(self, guides: str, ours: str) -> None:
        assert ULID.fullmatch(ours)
        self._ids[guides] = ours

    def type(self, command: str) -> tuple[int, Any]:
        """HTTP status, and the answer with our ids as the guide's."""
        for guides, ours in self._ids.items():
            command = command.replace(guides, ours)
        command = command.replace(GUIDE_ORIGIN, self._stack.url)
        body = self._folder / "body"
        more = f" -s -o {shlex.quote(str(body))} -w '%{{http_code}}'"
        done = subprocess.run(["bash", "-c", command + more], capture_output=True, text=True, check=True, timeout=60)
        text = body.read_text()
        for guides, ours in self._ids.items():
            text = text.replace(ours, guides)
        return int(done.stdout), json.loads(text)

    def poll(self, command: str) -> dict[str, Any]:
        """The guide: poll every 1 to 2 seconds until status is "completed"."""
        deadline = time.monotonic() + 90
        while True:
            status, job = self.type(command)
            assert status == 200
            if job["status"] in ("completed", "failed", "canceled"):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.5)


def assert_shows(answer: Any, guides: dict[str, Any]) -> None:
    """Every field that the guide shows is there with its value; times and ids of the guide's are any."""
    for name, value in guides.items():
        assert name in answer, name
        if isinstance(value, dict):
            assert_shows(answer[name], value)
        elif isinstance(value, str) and TIME.fullmatch(value):
            assert TIME.fullmatch(answer[name]), answer[name]
        else:
            assert answer[name] == value, name


@pytest.mark.row("S1.7")
@pytest.mark.row("S1.6")
@pytest.mark.row("S1.2")
def test_the_guides_commands_give_the_guides_answers(guide: Stack, tmp_path: Path) -> None:
    shell = Shell(guide, tmp_path)
    status, health = shell.type(HEALTH)
    assert status == 200
    assert_shows(health, {"status": "healthy", "checks": {"database": "healthy"}})
    status, problem = shell.type(NO_KEY)
    assert status == 401
    assert problem["type"].startswith("urn:")
    missing = {"title": "Unauthorized", "status": 401, "detail": "Missing authentication header: X-API-Key"}
    assert_shows(problem, {**missing, "instance": "/api/v1/configs"})
    status, system = shell.type(SYSTEM)
    assert status == 200
    assert TIME.fullmatch(system["current_time"])
    assert all(system[name] for name in ("timezone", "python_version", "platform", "hostname"))

    status, config = shell.type(CONFIG)
    assert status == 201
    moment = "2025-10-12T16:00:00Z"
    assert_shows(config, {"id": "01K7CXYHJ7BR4E87VVTG8FNBMA", "name": "secure_disease_model", "data": {}})
    assert_shows(config, {"created_at": moment, "updated_at": moment})

    status, submitted = shell.type(TRAIN)
    assert status == 202
    assert_shows(submitted, {"status": "pending", "message": "Training job submitted"})
    shell.rename("01K7CXYHJ7BR4E87VVTG8FNBMB", submitted["job_id"])
    shell.rename("01K7CXYHJ7BR4E87VVTG8FNBMC", submitted["model_artifact_id"])
    job = shell.poll(TRAIN_JOB)
    done = {"id": "01K7CXYHJ7BR4E87VVTG8FNBMB", "status": "completed", "result": "Training completed successfully"}
    assert_shows(job, {**done, "created_at": moment, "updated_at": moment})
    status, model = shell.type(MODEL)
    assert status == 200
    assert_shows(model, {"id": "01K7CXYHJ7BR4E87VVTG8FNBMC", "parent_id": None, "level": 0})
    assert_shows(model["data"], {"model_type": "sklearn.linear_model.LinearRegression", "trained_at": moment})
    assert_shows(model, {"created_at": moment, "updated_at": moment})

    status, submitted = shell.type(PREDICT)
    assert status == 202
    assert_shows(submitted, {"status": "pending", "message": "Prediction job submitted"})
    shell.rename("01K7CXYHJ7BR4E87VVTG8FNBMD", submitted["job_id"])
    shell.rename("01K7CXYHJ7BR4E87VVTG8FNBME", submitted["prediction_artifact_id"])
    assert shell.poll(PREDICT_JOB)["status"] == "completed"
    status, prediction = shell.type(PREDICTIONS)
    assert status == 200
    assert_shows(prediction, {"id": "01K7CXYHJ7BR4E87VVTG8FNBME", "parent_id": "01K7CXYHJ7BR4E87VVTG8FNBMC"})
    assert_shows(prediction, {"level": 1, "created_at": moment, "updated_at": moment})
    predictions = prediction["data"]["predictions"]
    assert predictions["columns"] == ["rainfall", "mean_temperature", "sample_0"]
    assert [row[:2] for row in predictions["data"]] == [[110.0, 26.0], [90.0, 28.0], [125.0, 24.0], [80.0, 29.0]]
    assert [round(row[2], 3) for row in predictions["data"]] == [13.046, 8.629, 16.567, 6.420]
