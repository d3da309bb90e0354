"""Large tables by reference: Parquet files that jobs read by ranges, checked before anything is queued."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.models.jobs.links import Link, ProcessKilled
from services.models.jobs.queue import QueueFull
from services.models.jobs.stored_tables import Footers
from strongroom.models.v1 import jobs_pb2, ml_pb2
from tests.ml_jobs import Ml, table, with_hostile_runner
from tests.models_installation import Installation, principal, refused

pytestmark = pytest.mark.row("S1.2")
ROWS = 150_000
DATA = "strongroom://default/datasets/big"


def parquet(columns: dict[str, Any], rows_in_group: int = 40_000) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made, row_group_size=rows_in_group)
    return made.getvalue()


def big(rows: int = ROWS) -> dict[str, Any]:
    """A table of a plane, with a text that no model needs."""
    chance = np.random.default_rng(7)
    a, b = chance.normal(size=rows), chance.normal(size=rows)
    return {"a": a, "note": ["ignored"] * rows, "b": b, "y": 2 * a - b + 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with with_hostile_runner(tmp_path_factory.mktemp("parquet"), job_slots=2, job_memory_mb=2048) as made:
        made.admin.put("big", "train.parquet", [parquet(big())], model="datasets")
        future = {name: column[:100_000] for name, column in big().items() if name != "y"}
        made.admin.put("future", "future.parquet", [parquet(future)], model="datasets")
        yield made


@pytest.fixture
def ml(made: Installation) -> Ml:
    return Ml(made)


def by_reference(url: str) -> ml_pb2.Table:
    return ml_pb2.Table(url=url)


def jobs_count(ml: Ml) -> int:
    return len(ml.call(ml.jobs.ListJobs, jobs_pb2.ListJobsRequest(page_size=1000)).jobs)


@pytest.fixture(scope="module")
def model(made: Installation) -> str:
    """A model that was trained with the big table."""
    job = Ml(made).trained({"features": ["a", "b"], "target": "y"}, by_reference(DATA))
    assert job.status == "completed", job
    return str(job.artifact_id)


def test_a_model_is_trained_with_a_file(ml: Ml, model: str) -> None:
    assert [round(value, 6) for value in ml.predicted(model, ["a", "b"], [[1, 1], [0, 0]])] == [4, 3]
    said = ml.data(model)
    assert said["rows"] == ROWS
    assert said["data_url"] == f"{DATA}/train.parquet"
    assert len(said["data_sha256"]) == 64


def test_predictions_become_a_file(made: Installation, ml: Ml, model: str) -> None:
    request = ml_pb2.PredictRequest(
        model_artifact_id=model,
        future=by_reference("strongroom://default/datasets/future/future.parquet"),
        output="strongroom://default/forecasts",
    )
    submitted = ml.call(ml.ml.Predict, request)
    job = ml.wait(submitted.job_id)
    assert job.status == "completed", job
    artifact = ml.read(submitted.prediction_artifact_id)
    assert artifact.url == f"strongroom://default/forecasts/{artifact.id}"
    said = ml.data(artifact.id)["predictions"]
    assert said == {
        "columns": ["a", "note", "b", "sample_0"],
        "rows": 100_000,
        "url": f"{artifact.url}/predictions.parquet",
    }
    stored = pq.read_table(io.BytesIO(made.admin.read(artifact.id, "predictions.parquet", "forecasts")))
    assert stored.column_names == said["columns"]
    expected = 2 * stored["a"].to_numpy() - stored["b"].to_numpy() + 3
    assert np.allclose(stored["sample_0"].to_numpy(), expected)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "ARTIFACT_NO_MODEL"):
        ml.predict(artifact.id, table(["a", "b"], [[1, 1]]))


def test_rows_in_the_request_become_a_file_as_well(made: Installation, ml: Ml, model: str) -> None:
    request = ml_pb2.PredictRequest(
        model_artifact_id=model, future=table(["a", "b"], [[1, 1], [0, 0]]), output="strongroom://default/forecasts"
    )
    submitted = ml.call(ml.ml.Predict, request)
    assert ml.wait(submitted.job_id).status == "completed"
    stored = made.admin.read(submitted.prediction_artifact_id, "predictions.parquet", "forecasts")
    assert pq.read_table(io.BytesIO(stored))["sample_0"].to_pylist() == pytest.approx([4, 3])


def test_small_files_are_predicted_into_the_artifact(made: Installation, ml: Ml, model: str) -> None:
    made.admin.put("small", "x.parquet", [parquet({"b": [1, None], "a": [1.0, 0.0]})], model="datasets")
    submitted = ml.predict(model, by_reference("strongroom://default/datasets/small"))
    # A linear regression takes no missing value, whatever way it came.
    assert ml.wait(submitted.job_id).reason == "RUNNER_REFUSED"
    made.admin.put("whole", "x.parquet", [parquet({"b": [1, 0], "a": [1.0, 0.0]})], model="datasets")
    submitted = ml.predict(model, by_reference("strongroom://default/datasets/whole"))
    assert ml.wait(submitted.job_id).status == "completed"
    predicted = ml.data(submitted.prediction_artifact_id)["predictions"]
    assert predicted["columns"] == ["b", "a", "sample_0"]
    assert [row[-1] for row in predicted["data"]] == pytest.approx([4, 3])


def test_text_becomes_columns_and_null_is_imputed(made: Installation, ml: Ml) -> None:
    """As it does of rows in a request."""
    columns = {"kind": pa.array(["x", "y"] * 50).dictionary_encode(), "n": [1.0, None] * 50, "y": [1, 5] * 50}
    made.admin.put("text", "x.parquet", [parquet(columns, 30)], model="datasets")
    steps = [{"transformer": "SimpleImputer"}]
    config = {"features": ["kind"], "target": "y"}
    job = ml.trained(config, by_reference("strongroom://default/datasets/text"))
    assert job.status == "completed", job
    assert ml.predicted(job.artifact_id, ["kind"], [["x"], ["y"]]) == pytest.approx([1, 5])
    config = {"features": ["n"], "target": "y", "steps": steps}
    job = ml.trained(config, by_reference("strongroom://default/datasets/text"))
    assert job.status == "completed", job


def test_columns_are_checked_before_anything_is_queued(made: Installation, ml: Ml, model: str) -> None:
    before = jobs_count(ml)
    config = ml.config({"target": "cases"})
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "COLUMNS_MISSING") as info:
        ml.train(config, by_reference(DATA))
    assert info.metadata["columns"] == "cases"
    when = pa.array([1, 2], pa.timestamp("s"))
    made.admin.put("dates", "x.parquet", [parquet({"when": when, "a": [1, 2], "b": [1, 2]})], model="datasets")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "TABLE_INVALID") as info:
        ml.predict(model, by_reference("strongroom://default/datasets/dates"))
    assert info.metadata["columns"] == "when"
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "TABLE_TOO_LARGE"):
        wide = {f"c{n}": np.zeros(100_000) for n in range(10)} | {"a": np.zeros(100_000), "b": np.zeros(100_000)}
        made.admin.put("wide", "x.parquet", [parquet(wide)], model="datasets")
        ml.predict(model, by_reference("strongroom://default/datasets/wide"))
    assert jobs_count(ml) == before


BROKEN = {
    "magic alone": b"PAR1",
    "text": b"rainfall,cases\n1,2\n",
    "endless footer": bytes(64) + b"\xff\xff\xff\x7fPAR1",
    "no footer": b"\xff" * 5000 + b"\x88\x13\0\0PAR1",
    "deep footer": b"PAR1" + b"\x15\x04" * 200 + b"\x90\x01\0\0PAR1",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_parquet_file_is_refused(made: Installation, ml: Ml, name: str) -> None:
    version = "broken-" + name.replace(" ", "-")
    made.admin.put(version, "x.parquet", [BROKEN[name]], model="datasets")
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "TABLE_INVALID"):
        ml.train(ml.config({}), by_reference(f"strongroom://default/datasets/{version}"))


def test_a_file_cut_in_its_middle_fails_its_job_alone(made: Installation, ml: Ml) -> None:
    whole = parquet(big(20_000))
    broken = whole[:1000] + bytes(len(whole) // 2) + whole[1000 + len(whole) // 2 :]
    made.admin.put("holes", "x.parquet", [broken], model="datasets")
    job = ml.trained({"features": ["a"], "target": "y"}, by_reference("strongroom://default/datasets/holes"))
    assert job.status == "failed"
    assert job.reason in ("RUNNER_REFUSED", "RUNNER_FAILED", "WORKER_KILLED")


@pytest.mark.parametrize(
    ("url", "code", "reason"),
    [
        ("strongroom://default/datasets", grpc.StatusCode.INVALID_ARGUMENT, "TABLE_ADDRESS_INVALID"),
        ("strongroom://default/datasets/../x", grpc.StatusCode.INVALID_ARGUMENT, "TABLE_ADDRESS_INVALID"),
        ("strongroom://default/datasets/none", grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND"),
        (f"{DATA}/../../../keys/models.pem", grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND"),
    ],
)
def test_addresses_name_what_is_stored(ml: Ml, url: str, code: grpc.StatusCode, reason: str) -> None:
    with refused(code, reason):
        ml.train(ml.config({}), by_reference(url))


def test_a_table_is_read_for_those_who_may_read_it(made: Installation, ml: Ml, model: str) -> None:
    """Whether it is there or not: who may not is told the same."""
    config = ml.config({"model_name": "mine", "features": ["a"], "target": "y"})
    theirs = ("managers/default/models/mine", "configs/**")
    stranger = Ml(made, principal("stranger", "ml.*", "models.*", resources=theirs))
    for version in ("big", "none"):
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as info:
            stranger.train(config, by_reference(f"strongroom://default/datasets/{version}"))
        assert info.metadata["resource"] == "managers/default/models/datasets"
    reader = Ml(made, principal("reader", "ml.predict", "models.read"))
    with refused(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING") as info:
        request = ml_pb2.PredictRequest(
            model_artifact_id=model, future=by_reference(DATA), output="strongroom://default/forecasts"
        )
        reader.call(reader.ml.Predict, request)
    assert info.metadata["permission"] == "models.write"


def test_a_table_behind_an_access_code_is_refused(made: Installation, ml: Ml) -> None:
    made.admin.with_code("a code of the table").put("coded", "x.parquet", [parquet({"x": [1], "y": [2]})], "datasets")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "TABLE_PROTECTED"):
        ml.train(ml.config({}), by_reference("strongroom://default/datasets/coded"))


def test_a_table_that_is_deleted_meanwhile_fails_its_job(made: Installation, ml: Ml, tmp_path: Path) -> None:
    made.admin.put("brief", "x.parquet", [parquet({"x": [1, 2], "y": [2, 4]})], model="datasets")
    config = ml.config({})
    at_work = [ml.train(config, by_reference(DATA)).job_id for _ in range(4)]
    job_id = ml.train(config, by_reference("strongroom://default/datasets/brief")).job_id
    made.admin.delete("brief", "datasets")
    ended = ml.wait(job_id)
    assert (ended.status, ended.reason) in (("failed", "VERSION_NOT_FOUND"), ("completed", ""))
    for job in at_work:
        ml.wait(job)


def test_a_table_that_becomes_another_meanwhile_is_not_taken_for_it(made: Installation, ml: Ml) -> None:
    """Of what a model was trained with, its artifact says the digest."""
    made.admin.put("same", "x.parquet", [parquet({"x": [1, 2], "y": [2, 4]})], model="datasets")
    sleeper = ml.config({"runner": "hostile", "act": "sleep", "number": 60})
    at_work = [ml.train(sleeper).job_id for _ in range(2)]
    job_id = ml.train(ml.config({}), by_reference("strongroom://default/datasets/same")).job_id
    made.admin.delete("same", "datasets")
    made.admin.put("same", "x.parquet", [parquet({"x": [1, 2], "y": [9, 9]})], model="datasets")
    for job in at_work:
        ml.cancel(job)
    ended = ml.wait(job_id)
    assert (ended.status, ended.reason) == ("failed", "TABLE_INVALID")


class NeverReady:
    """A place where no process is born."""

    def __init__(self) -> None:
        self.given_up = threading.Event()

    @contextmanager
    def start(self, watch: Callable[[], None], seconds: int, *, load: bool) -> Iterator[Link]:
        self.given_up.wait(30)
        raise ProcessKilled
        yield

    def close(self) -> None: ...


def test_looks_at_tables_do_not_take_all_threads_of_the_service() -> None:
    place = NeverReady()
    footers = Footers(place)
    nothing: Any = None
    with ThreadPoolExecutor(9) as callers:
        looks = [callers.submit(footers.describe, 1, nothing) for _ in range(9)]
        [refused_one], waiting = wait(looks, 10, FIRST_COMPLETED)
        assert isinstance(refused_one.exception(), QueueFull)
        place.given_up.set()
        assert {look.result()["failed"] for look in waiting} == {"LOOK_FAILED"}


@pytest.mark.parametrize(
    "words",
    [
        '{"table": "data", "offset": 0, "length": 10}',  # it has one, which is in its request
        '{"table": "model", "offset": 0, "length": 10}',
        '{"table": "../keys", "offset": 0, "length": 10}',
        '{"table": "data", "offset": -1, "length": 10}',
        '{"table": "data", "offset": 0, "length": 1e9}',
        '{"table": "data", "offset": 0, "length": 8388609}',
        "{}",
        "[",
    ],
)
def test_a_runner_gets_no_bytes_but_those_of_its_tables(ml: Ml, words: str) -> None:
    job = ml.trained({"runner": "hostile", "act": "ask", "at": words})
    assert (job.status, job.reason) == ("failed", "RUNNER_BROKEN")
