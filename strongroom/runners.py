"""What a runner is: code that trains a model and predicts with it, found by its entry point `strongroom.runners`.

    [project.entry-points."strongroom.runners"]
    mean = "mean_runner:MeanRunner"

Each job is a process of its own, without network, without further processes, and with no files to read but its
program's (docs/training.md). A runner is made without arguments in that process. What it trains is stored by skops,
which opens plain data, numpy arrays and scikit-learn's own types; a runner names its other types in `trusted`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

Cell = float | int | str | bool | None


@dataclass(frozen=True)
class Table:
    """Rows of values, each as long as `columns`.

    One that is kept in a file is read when it is asked: `batches` and `map` hold a part of it at a time, `column` one
    column, and only `rows` all of it.
    """

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

    def __len__(self) -> int:
        """How many rows."""
        return len(self.rows)

    def has_text(self, name: str) -> bool:
        """Whether any value of a column is text. Raises as `column`."""
        return any(isinstance(value, str) for value in self.column(name))

    def numbers(self, name: str) -> Sequence[float]:
        """A column without text as floats, null as NaN. Raises as `column`."""
        return [math.nan if value is None else float(value) for value in self.column(name)]

    def batches(self) -> Iterator["Table"]:
        """Its rows in order, some at a time."""
        yield self

    def map(self, change: Callable[["Table"], "Table"]) -> "Table":
        """What `change` makes of the batches: for predictions that need one row at a time and no other."""
        return change(self)


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
