"""Tables in Parquet files, read and written row group by row group. Loaded in jobs' processes alone: whoever sent a
file may have made it to harm its reader (https://nvd.nist.gov/vuln/detail/CVE-2023-47248 was one such)."""

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.models.runners.table_files import AnswerFile, RangeFile
from strongroom.runners import Cell, Table

# Rows of a batch, and bytes that are read at a time of each of its columns.
BATCH_ROWS = 1 << 16
_BUFFER = 4 << 20
# A footer names each column chunk: what a sensible file of thousands of row groups has.
_MOST_FOOTER = 64 << 20

_MOST_COLUMNS = 1000

NUMBER, TEXT, BOOLEAN, NULL = "number", "text", "boolean", "null"

# Arrow's own allocators reserve address space far beyond what they use, and of that a job has a limit.
pa.set_memory_pool(pa.system_memory_pool())


def described(file: RangeFile) -> dict[str, Any]:
    """Columns with their kinds, and how many rows, told by the file's footer alone. Raises ValueError."""
    metadata = _opened(file).metadata
    if metadata.num_columns > _MOST_COLUMNS:
        raise ValueError(f"It has more than {_MOST_COLUMNS} columns.")
    schema = metadata.schema.to_arrow_schema()
    columns = [{"name": field.name, "kind": _kind(field.type)} for field in schema]
    return {"columns": columns, "rows": metadata.num_rows, "row_groups": metadata.num_row_groups}


class ParquetTable(Table):
    """A table of which the file is read when it is asked, and only these columns."""

    def __init__(self, file: RangeFile, columns: Sequence[str]) -> None:
        object.__setattr__(self, "columns", list(columns))
        object.__setattr__(self, "_file", _opened(file))
        self._file: pq.ParquetFile
        schema = self._file.schema_arrow
        object.__setattr__(self, "types", [schema.field(name).type for name in columns])
        self.types: list[pa.DataType]

    @property
    def rows(self) -> Sequence[Sequence[Cell]]:  # it is read each time
        return [row for batch in self.batches() for row in batch.rows]

    def column(self, name: str) -> list[Cell]:
        self.columns.index(name)
        return [cell for batch in self._read([name]) for cell in batch.column(name)]

    def with_column(self, name: str, values: Sequence[Cell]) -> Table:
        return Table(self.columns, self.rows).with_column(name, values)

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def has_text(self, name: str) -> bool:
        return _kind(self.types[self.columns.index(name)]) == TEXT

    def batches(self) -> Iterator["Batch"]:
        return self._read(self.columns)

    def map(self, change: Callable[[Table], Table]) -> Table:
        return _Mapped(self, change)

    def _read(self, columns: Sequence[str]) -> Iterator["Batch"]:
        """At least one, if it has no rows."""
        if not len(self):
            yield Batch(pa.RecordBatch.from_pylist([], self._file.schema_arrow).select(list(columns)))
        for batch in self._file.iter_batches(BATCH_ROWS, columns=list(columns), use_threads=False):
            yield Batch(batch.select(list(columns)))  # their order is the file's


class Batch(Table):
    """Some rows of a Parquet table."""

    def __init__(self, arrow: pa.RecordBatch) -> None:
        object.__setattr__(self, "columns", arrow.schema.names)
        object.__setattr__(self, "arrow", arrow)
        self.arrow: pa.RecordBatch

    @property
    def rows(self) -> Sequence[Sequence[Cell]]:  # it is made each time
        return list(zip(*(column.to_pylist() for column in self.arrow.columns), strict=True))

    def column(self, name: str) -> list[Cell]:
        cells: list[Cell] = self.arrow.column(self.columns.index(name)).to_pylist()
        return cells

    def numbers(self, name: str) -> Sequence[float]:
        column = self.arrow.column(self.columns.index(name)).cast(pa.float64(), safe=False)
        floats: Sequence[float] = column.to_numpy(zero_copy_only=False)
        return floats

    def with_column(self, name: str, values: Sequence[Cell]) -> Table:
        """Raises ValueError as `Table.with_column`."""
        return Batch(pa.RecordBatch.from_arrays([*self.arrow.columns, pa.array(values)], [*self.columns, name]))

    def __len__(self) -> int:
        return int(self.arrow.num_rows)


class _Mapped(Table):
    """What becomes of a table's batches, made as it is read."""

    def __init__(self, table: ParquetTable, change: Callable[[Table], Table]) -> None:
        first = change(next(table.batches()))
        object.__setattr__(self, "columns", first.columns)
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "_table", table)
        object.__setattr__(self, "_change", change)
        self._first: Table
        self._table: ParquetTable
        self._change: Callable[[Table], Table]

    @property
    def rows(self) -> Sequence[Sequence[Cell]]:  # it is made each time
        return [row for batch in self.batches() for row in batch.rows]

    def column(self, name: str) -> list[Cell]:
        return [cell for batch in self.batches() for cell in batch.column(name)]

    def __len__(self) -> int:
        return sum(map(len, self.batches()))

    def batches(self) -> Iterator[Table]:
        """The first one is not made twice."""
        yield self._first
        yield from map(self._change, islice(self._table.batches(), 1, None))


def write(table: Table, file: AnswerFile) -> tuple[list[str], int]:
    """Writes a table, a row group for each of its batches; its columns, and how many rows. Raises ValueError."""
    batches = table.batches()
    first = _arrow(next(batches))
    schema = pa.schema([(field.name, _kept(field.type)) for field in first.schema])
    rows = 0
    with pq.ParquetWriter(pa.PythonFile(file, mode="w"), schema, compression="zstd") as writer:
        for batch in chain([first], map(_arrow, batches)):
            writer.write_table(pa.Table.from_batches([batch]).cast(schema))
            rows += batch.num_rows
    return list(schema.names), rows


def _arrow(batch: Table) -> pa.RecordBatch:
    if isinstance(batch, Batch):
        return batch.arrow
    return pa.RecordBatch.from_arrays([pa.array(batch.column(name)) for name in batch.columns], list(batch.columns))


def _opened(file: RangeFile) -> pq.ParquetFile:
    """Reads the footer. Raises ValueError."""
    size = file.seek(-8, io.SEEK_END)
    tail = file.read() if size >= 0 else b""
    if tail[4:] != b"PAR1":
        raise ValueError("It is no Parquet file, or an encrypted one.")
    if int.from_bytes(tail[:4], "little") > _MOST_FOOTER:
        raise ValueError(f"Its footer is larger than {_MOST_FOOTER >> 20} MiB: write larger row groups.")
    file.seek(0)
    return pq.ParquetFile(pa.PythonFile(file, mode="r"), buffer_size=_BUFFER)


def _kind(of: pa.DataType) -> str:
    """Of a column that a table may have, NUMBER, TEXT, BOOLEAN or NULL; of others what Arrow calls it."""
    value = of.value_type if pa.types.is_dictionary(of) else of
    if pa.types.is_integer(value) or pa.types.is_floating(value):
        return NUMBER
    if pa.types.is_string(value) or pa.types.is_large_string(value):
        return TEXT
    return {pa.bool_(): BOOLEAN, pa.null(): NULL}.get(value, str(of)[:100])


def _kept(of: pa.DataType) -> pa.DataType:
    """What a column is stored as of which the first batch has this type: there may be values later."""
    if pa.types.is_dictionary(of):
        return of.value_type
    return pa.float64() if pa.types.is_null(of) else of
