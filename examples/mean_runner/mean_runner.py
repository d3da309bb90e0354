"""A runner of a team's own: predicts the mean of the target, whatever the features say.

Install it beside the models service (`pip install examples/mean_runner`), then name it in a config:

    {"runner": "mean", "round_to": 1}
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from strongroom.runners import Table, Task


class MeanRunner:
    """A model of it is plain data: `{"mean": 4.2}`."""

    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"round_to": {"type": "integer", "minimum": 0, "maximum": 9, "default": 3}},
    }
    # Types that a model consists of beside plain data, numpy's and scikit-learn's: none.
    trusted: ClassVar[Sequence[str]] = ()

    def train(self, task: Task, data: Table) -> dict[str, float]:
        values = [value for value in data.column(task.config["target"]) if isinstance(value, int | float)]
        if not values:
            raise ValueError("The target has no numbers.")
        task.progress(1.0)
        print(f"{len(values)} values seen")
        return {"mean": round(fmean(values), task.config.get("round_to", 3))}

    def predict(self, task: Task, model: dict[str, float], historic: Table, future: Table) -> Table:
        return future.with_column("sample_0", [model["mean"]] * len(future.rows))
