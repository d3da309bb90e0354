"""Tables of data as callers send them. Pure."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.shared.errors import InvalidArgument
from strongroom.runners import Cell

# Cells of a table: what a million rows of a hundred numbers have.
_MOST_CELLS = 100_000_000
# Columns that an error names.
_TOLD = 20


class TableInvalid(InvalidArgument):
    """The rows do not fit the columns."""

    reason = "TABLE_INVALID"


class TableTooLarge(InvalidArgument):
    """A table of this size is no JSON document."""

    reason = "TABLE_TOO_LARGE"


class ColumnsMissing(InvalidArgument):
    """The table lacks columns; `columns` names them, with commas between."""

    reason = "COLUMNS_MISSING"

    def __init__(self, where: str, missing: Sequence[str], there: Sequence[str]) -> None:
        names, has = _quoted(missing), _quoted(there) or "none"
        super().__init__(f"{where} lacks the columns {names}. It has {has}.", columns=",".join(missing[:_TOLD]))


@dataclass(frozen=True)
class DataTable:
    """Columns, and rows of one value for each."""

    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = field(default=(), repr=False)

    @property
    def count(self) -> int:
        """How many rows."""
        return len(self.rows)

    def check(self, where: str) -> None:
        """Raises TableInvalid."""
        if len(set(self.columns)) != len(self.columns):
            raise TableInvalid(f"{where} has a column twice.")
        width = len(self.columns)
        if width * len(self.rows) > _MOST_CELLS:
            raise TableInvalid(f"{where} has more than {_MOST_CELLS} values.")
        for number, row in enumerate(self.rows, 1):
            if len(row) != width:
                raise TableInvalid(f"Row {number} of {where} has {len(row)} values for {width} columns.")
            if not all(map(_is_cell, row)):
                raise TableInvalid(
                    f"Row {number} of {where} has a value that is neither number, text, boolean nor null."
                )

    def require(self, where: str, columns: Sequence[str]) -> None:
        """Raises ColumnsMissing."""
        require(self.columns, where, columns)

    def as_json(self) -> dict[str, Any]:
        """As a job's process takes it."""
        return {"columns": list(self.columns), "data": [list(row) for row in self.rows]}

    def origin(self) -> dict[str, Any]:
        """What tells which data it was without telling the data: SHA-256 of it as compact JSON."""
        whole = json.dumps(self.as_json(), separators=(",", ":")).encode()
        return {"data_sha256": hashlib.sha256(whole).hexdigest()}


def require(there: Sequence[str], where: str, columns: Sequence[str]) -> None:
    """Raises ColumnsMissing unless a table with the columns `there` has these."""
    missing = [name for name in columns if name not in there]
    if missing:
        raise ColumnsMissing(where, missing, there)


def _is_cell(value: object) -> bool:
    # JSON has no infinity and no NaN.
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and math.isfinite(value))


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(f"'{name}'" for name in names[:_TOLD]) + more
