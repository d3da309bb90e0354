"""The example of a runner of one's own: built as a package, installed, and used."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.ml_jobs import Ml, table
from tests.models_installation import installation

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "mean_runner"


@pytest.mark.row("S1.2")
def test_a_team_adds_its_own_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=EXAMPLE, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    installed, data = tmp_path / "site", tmp_path / "data"
    zipfile.ZipFile(wheel).extractall(installed)
    monkeypatch.syspath_prepend(installed)
    data.mkdir()
    with installation(data) as made:
        ml = Ml(made)
        job = ml.trained({"runner": "mean", "round_to": 1, "target": "y"}, table(["x", "y"], [[1, 2], [2, 4.12]]))
        assert (job.status, ml.log(job.id)) == ("completed", ["2 values seen"])
        assert ml.data(job.artifact_id)["model_type"] == "builtins.dict"
        assert ml.predicted(job.artifact_id, ["x"], [[7], [8]]) == [3.1, 3.1]
        failed = ml.trained({"runner": "mean", "target": "y"}, table(["x", "y"], [[1, "text"]]))
        assert (failed.reason, failed.result) == ("RUNNER_REFUSED", "The target has no numbers.")
