"""What a runner is: code that trains a model and predicts with it, found by its entry point `strongroom.runners`.

    [project.entry-points."strongroom.runners"]
    mean = "mean_runner:MeanRunner"

Each job is a process of its own, without network, without further processes, and with no files to read but its
program's (docs/training.md). A runner is made without arguments in that process. What it trains is stored by skops,
which opens plain data, numpy arrays and scikit-learn's own types; a runner names its other types in `trusted`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

Cell = float | int | str | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of values, each as long as `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]] = field(repr=False)

    def column(self, name: str) -> list[Cell]:
        """The values of a column. Raises ValueError if there is none of that name."""
        at = list(self.columns).index(name)
        return [row[at] for row in self.rows]

    def with_column(self, name: str, values: Sequence[Cell]) -> "Table":
        """The table with one more column. Raises ValueError unless there is one value for each row."""
        rows = [[*row, value] for row, value in zip(self.rows, values, strict=True)]
        return Table([*self.columns, name], rows)


@dataclass(frozen=True)
class Task:
    """What surrounds a job: `progress` takes 0 to 1. What a runner prints is the job's log."""

    config: Mapping[str, Any]
    progress: Callable[[float], None]


class Runner(Protocol):
    """Trains and predicts. Whatever it raises fails the job; a ValueError's own words are told to the caller."""

    # The JSON schema (draft 2020-12) of a config's `data` without what Strongroom itself reads there.
    schema: ClassVar[Mapping[str, Any]]
    # Types beyond skops' own that its models consist of, such as `mean_runner.Mean`.
    trusted: ClassVar[Sequence[str]]

    def train(self, task: Task, data: Table) -> Any:
        """A model."""
        ...

    def predict(self, task: Task, model: Any, historic: Table, future: Table) -> Table:
        """The table `future` with columns added, such as `sample_0`."""
        ...
