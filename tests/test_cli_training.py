"""`strongroom configs`, `train`, `predict`, `jobs`, `artifacts` as they are typed."""

import json
from pathlib import Path

import pytest

from strongroom import Client
from tests.catalog import fresh
from tests.ml_jobs import CASES, WEATHER
from tests.stack import Stack
from tests.terminal import Terminal

pytestmark = [pytest.mark.row("S1.1"), pytest.mark.row("S1.2"), pytest.mark.row("S1.3"), pytest.mark.row("S1.4")]


@pytest.fixture
def strongroom(stack: Stack) -> Terminal:
    return Terminal.of(stack)


@pytest.fixture
def weather(tmp_path: Path) -> Path:
    file = tmp_path / "data.csv"
    file.write_text("\n".join(",".join(map(str, row)) for row in [WEATHER, *CASES]) + "\n")
    return file


def test_from_a_config_to_predictions(strongroom: Terminal, weather: Path, tmp_path: Path) -> None:
    name = fresh("disease")
    made = strongroom("configs", "create", name, "estimator=LinearRegression", "target=disease_cases")
    config_id = made.out.strip()
    assert name in strongroom("configs", "list").out
    assert json.loads(strongroom("configs", "show", config_id).out)["data"]["target"] == "disease_cases"
    trained = strongroom("train", weather, "--config", name, "--follow")
    assert trained.out.startswith("Training completed successfully: model "), trained.err
    model = trained.out.split()[-1]
    future, predicted = tmp_path / "future.csv", tmp_path / "predicted.csv"
    future.write_text("rainfall,mean_temperature\n110.0,26.0\n90.0,28.0\n")
    shown = strongroom("predict", model, future)
    assert [round(float(line.split(",")[2]), 3) for line in shown.out.splitlines()[1:]] == [13.046, 8.629]
    assert strongroom("predict", model, future, "-o", predicted).status == 0
    assert predicted.read_text().splitlines() == shown.out.splitlines()
    root, *below = strongroom("artifacts", "tree", model).out.splitlines()
    assert root.startswith(f"{model}  strongroom://default/{name}/{model}")
    assert [line[:4] for line in below] == ["├── ", "└── "]
    assert all("prediction" in line for line in below)
    prediction = below[0].split()[1]
    assert json.loads(strongroom("artifacts", "show", prediction).out)["parent_id"] == model
    assert strongroom("artifacts", "delete", model, "--yes").err.count("below this one") == 1
    assert strongroom("artifacts", "delete", prediction, "--yes").status == 0
    assert prediction not in strongroom("artifacts", "made").out
    assert strongroom("ls", name).out.startswith(model)
    assert strongroom("configs", "update", config_id, "target=rainfall").status == 0
    assert strongroom("configs", "rm", config_id, "--yes").out == f"{config_id} deleted\n"


def test_jobs(strongroom: Terminal, weather: Path) -> None:
    name = fresh("jobs")
    strongroom("configs", "create", name)
    submitted = json.loads(strongroom("train", weather, "-c", name, "--json").out)
    job_id = submitted["job_id"]
    assert strongroom("jobs", "follow", job_id).out == "Training completed successfully\n"
    assert any(line.startswith(f"{job_id}\ttrain\tcompleted") for line in strongroom("jobs", "list").out.splitlines())
    assert json.loads(strongroom("jobs", "show", job_id).out)["artifact_id"] == submitted["model_artifact_id"]
    assert strongroom("jobs", "log", job_id).out == ""
    assert strongroom("jobs", "cancel", job_id).status == 0
    assert strongroom("jobs", "show", job_id).err == f"strongroom: There is no job '{job_id}'.\n"


def test_what_goes_wrong_is_said_in_one_line(strongroom: Terminal, weather: Path, tmp_path: Path) -> None:
    name, text = fresh("wrong"), tmp_path / "text.csv"
    strongroom("configs", "create", name, "estimator=LinearRegression")
    assert "data.estimator" in strongroom("configs", "create", "x", "estimator=nonsense").err
    assert strongroom("configs", "create", "x", "nonsense").status == 2
    assert strongroom("train", weather, "-c", fresh("nobody")).err.endswith("'\n")
    assert strongroom("train", tmp_path / "none.csv", "-c", name).status == 2
    text.write_text("a,b\n1,x\n2,y\n")
    failed = strongroom("train", text, "-c", name, "--follow")
    assert failed.status == 1
    assert " failed: " in failed.err
    assert "Traceback" not in failed.err


def test_the_client(stack: Stack) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        assert "estimator" in client.configs.schema()["properties"]
        config = client.configs.create(fresh("client"), {"estimator": "RandomForestClassifier", "target": "kind"})
        rows = [[1.0, "red", "a"], [2.0, "blue", "b"], [1.1, "red", "a"], [2.2, "blue", "b"]]
        submitted = client.ml.train(config.id, ["size", "color", "kind"], rows)
        assert client.jobs.wait(submitted.job_id).status == "completed"
        predicted = client.ml.predict(submitted.model_artifact_id, ["size", "color"], [[1.0, "red"], [2.1, "blue"]])
        states = [news.job.status for news in client.jobs.watch(predicted.job_id)]
        assert states[-1] == "completed"
        table = client.ml.predictions(predicted.prediction_artifact_id)
        assert table == {"columns": ["size", "color", "sample_0"], "data": [[1.0, "red", "a"], [2.1, "blue", "b"]]}
        note = client.ml.add({"checked": True}, parent_id=predicted.prediction_artifact_id)
        assert note.level == 2
        client.ml.delete(note.id)
