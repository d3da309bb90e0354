"""What a job's process answers is anybody's: what cannot be stored or sent on is refused, and the job ends."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.models.jobs.answers import model_data, predictions, refusal
from services.models.runners.frames import FrameBroken

pytestmark = pytest.mark.row("S1.3")
HALF = "\ud800"


@pytest.mark.parametrize("cell", [HALF, 10**400, [1], {"a": 1}])
def test_a_prediction_that_no_message_holds_is_none(cell: Any) -> None:
    with pytest.raises(FrameBroken):
        predictions({"columns": ["x"], "data": [[cell]]}, {"rows": 1})


def test_a_column_that_no_message_names_is_none() -> None:
    with pytest.raises(FrameBroken):
        predictions({"columns": [HALF], "data": []}, {"rows": 0})


@pytest.mark.parametrize("cell", [True, None, 1, 1.5, "text", "\0"])
def test_what_a_table_holds_stays_as_it_is(cell: Any) -> None:
    assert predictions({"columns": ["x"], "data": [[cell]]}, {"rows": 1})["data"] == [[cell]]


def test_what_is_said_in_passing_is_made_plain() -> None:
    assert refusal({"failed": "RUNNER_REFUSED", "message": f"no\0 {HALF}"}).result == "no ?"
    said = model_data({"model_type": f"a{HALF}"}, {"lineage": {}}, datetime.now(UTC))
    assert said["model_type"] == "a?"
