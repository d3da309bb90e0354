"""Tables by reference through the gateway: by the command line, and over REST."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom import Client
from tests.catalog import fresh
from tests.stack import Stack
from tests.terminal import Terminal

pytestmark = [pytest.mark.row("S1.2"), pytest.mark.row("S1.4")]
X = [float(number) for number in range(1000)]


def test_from_a_parquet_file_to_a_forecast(stack: Stack, tmp_path: Path) -> None:
    strongroom, name = Terminal.of(stack), fresh("line")
    data, future, forecast = (tmp_path / f"{part}.parquet" for part in ("data", "future", "forecast"))
    pq.write_table(pa.table({"x": X, "y": [2 * x + 1 for x in X]}), data)
    pq.write_table(pa.table({"x": X}), future)
    strongroom("configs", "create", name, "target=y")
    trained = strongroom("train", data, "--config", name, "--follow")
    assert trained.out.startswith("Training completed successfully: model "), trained.err
    model = trained.out.split()[-1]
    assert strongroom("predict", model, future, "--out", forecast).status == 0
    assert pq.read_table(forecast)["sample_0"].to_pylist() == pytest.approx([2 * x + 1 for x in X])
    # Few enough for standard output, and a file of rows that came with the request.
    shown = strongroom("predict", model, future).out.splitlines()
    assert (shown[0], len(shown)) == ("x,sample_0", 1001)
    rows = tmp_path / "rows.csv"
    rows.write_text("x\n1\n")
    assert strongroom("predict", model, rows, "-o", forecast).status == 0
    assert pq.read_table(forecast)["sample_0"].to_pylist() == pytest.approx([3])
    assert strongroom("train", tmp_path / "none.parquet", "--config", name).status == 2


def test_over_rest(stack: Stack, tmp_path: Path) -> None:
    name = fresh("table")
    file = tmp_path / "data.parquet"
    pq.write_table(pa.table({"x": X, "y": X}), file)
    place = f"managers/default/models/{name}/versions/v1/files/data.parquet"
    assert _call(stack, "PUT", place, file.read_bytes())["version"] == "v1"
    config = _call(stack, "POST", "configs", {"name": name, "data": {}})["id"]
    url = f"strongroom://default/{name}/v1/data.parquet"
    submitted = _call(stack, "POST", "ml/$train", {"config_id": config, "data": {"url": url}})
    with Client(stack.url, api_key=stack.admin_key) as client:
        assert client.jobs.wait(submitted["job_id"]).status == "completed"
    trained = _call(stack, "GET", f"artifacts/{submitted['model_artifact_id']}")
    assert trained["data"]["data_url"] == url
    with pytest.raises(urllib.error.HTTPError) as refused:
        _call(stack, "POST", "ml/$train", {"config_id": config, "data": {"url": url, "columns": ["x"]}})
    assert refused.value.code == 400
    assert json.load(refused.value)["reason"] == "TABLE_INVALID"


def _call(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    plain = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"X-API-Key": stack.admin_key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{stack.url}/api/v1/{path}", plain, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)
