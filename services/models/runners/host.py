"""The process of one job, from its task to its result.

What a runner prints goes into the job's log. A runner's code is imported only once the process is shut in.
"""

import importlib
import io
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from services.models.runners import frames, sandbox
from services.models.runners.table_files import AnswerFile, RangeFile
from strongroom.runners import Runner, Table, Task

# Characters of what is told to callers.
_TOLD = 900


def serve(source_descriptor: int, answers_descriptor: int) -> None:
    """Does what the task says that comes in, and answers."""
    source, answers = os.fdopen(source_descriptor, "rb"), os.fdopen(answers_descriptor, "wb")
    answer = _work(_task(source), source, answers)
    # Before the answer, with which the process may be ended.
    sys.stdout.flush()
    sys.stderr.flush()
    frames.write_json(answers, frames.RESULT, answer)


def _task(source: BinaryIO) -> dict[str, Any]:
    kind, body = frames.read(source)
    if kind != frames.TASK:
        raise SystemExit(2)
    return frames.parse_json(body)


def _work(task: dict[str, Any], source: BinaryIO, answers: BinaryIO) -> dict[str, Any]:
    """What came of it, as the service expects it."""
    try:
        _shut_in(task)
        return _answer(task, source, answers)
    except sandbox.SandboxUnavailable as error:
        return _failure("ISOLATION_UNAVAILABLE", f"Jobs cannot be isolated on this system: {error}.")
    except ValueError as error:
        return _failure("RUNNER_REFUSED", _line(str(error)) or "The runner refused the data.")
    except MemoryError:
        return _failure("MEMORY_EXCEEDED", "The job needs more memory than it may use.")
    except Exception as error:
        _print_error()
        return _failure("RUNNER_FAILED", f"The runner failed with {type(error).__name__}; the job's log says more.")


def _shut_in(task: dict[str, Any]) -> None:
    sandbox.limit(sandbox.Limits(**task["limits"]))
    if task["isolated"]:
        sandbox.enter(Path(task["folder"]), [Path(name) for name in task["hidden"]])


def _runner(task: dict[str, Any]) -> Runner:
    module, _, name = task["runner"].partition(":")
    made: Runner = getattr(importlib.import_module(module), name)()
    return made


def _answer(task: dict[str, Any], source: BinaryIO, answers: BinaryIO) -> dict[str, Any]:
    stored = io.BytesIO()
    while (frame := frames.read(source))[0] == frames.DATA:
        stored.write(frame[1])
    match task["operation"]:
        case "train":
            return _train(_runner(task), task, source, answers)
        case "predict":
            return _predict(_runner(task), task, stored, source, answers)
        case "look":
            from services.models.runners import parquet

            return parquet.described(RangeFile("table", task["bytes"], source, answers))
        case _:
            return {"schema": dict(_runner(task).schema)}


def _train(runner: Runner, task: dict[str, Any], source: BinaryIO, answers: BinaryIO) -> dict[str, Any]:
    target = task["config"]["target"]
    wanted = [*task["config"]["features"], *([] if target is None else [target])]
    model = runner.train(_around(task, answers), _table(task, "data", source, answers, wanted))
    AnswerFile(answers).write(_stored(runner, model))
    return {"model_type": _kind(model)}


def _predict(
    runner: Runner, task: dict[str, Any], stored: io.BytesIO, source: BinaryIO, answers: BinaryIO
) -> dict[str, Any]:
    model = _opened(runner, stored)
    historic, future = (_table(task, name, source, answers) for name in ("historic", "future"))
    table = runner.predict(_around(task, answers), model, historic, future)
    if task.get("to_file"):
        from services.models.runners import parquet

        columns, rows = parquet.write(table, AnswerFile(answers))
        return {"columns": columns, "rows": rows}
    return {"columns": list(table.columns), "data": [list(row) for row in table.rows]}


def _stored(runner: Runner, model: Any) -> memoryview:
    """The model as skops writes it. Raises ValueError if it could not be opened again."""
    if isinstance(model, bytes | dict | list | str | int | float):
        return memoryview(b"J" + json.dumps(model).encode()) if not isinstance(model, bytes) else _raw(model)
    from skops import io as skops

    written = skops.dumps(model)
    _refuse_unknown(skops.get_untrusted_types(data=written), runner)
    return memoryview(b"S" + written)


def _kind(model: Any) -> str:
    """The name of its type as one imports it; of a pipeline that of its last step."""
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    modules = [part for part in type(last).__module__.split(".") if not part.startswith("_")]
    return ".".join([*modules, type(last).__qualname__])


def _raw(model: bytes) -> memoryview:
    return memoryview(b"B" + model)


def _opened(runner: Runner, stored: io.BytesIO) -> Any:
    """The model. What may be in it says the runner's code, never the file. Raises ValueError."""
    whole = stored.getvalue()
    kind, body = whole[:1], whole[1:]
    if kind == b"B":
        return body
    if kind == b"J":
        return json.loads(body)
    from skops import io as skops

    _refuse_unknown(skops.get_untrusted_types(data=body), runner)
    return skops.loads(body, trusted=list(runner.trusted))


def _refuse_unknown(found: list[str], runner: Runner) -> None:
    unknown = sorted(set(found) - set(runner.trusted))
    if unknown:
        raise ValueError(f"The model has types that its runner does not trust: {', '.join(unknown)}.")


def _around(task: dict[str, Any], answers: BinaryIO) -> Task:
    def progress(done: float) -> None:
        frames.write_json(answers, frames.PROGRESS, {"done": min(1.0, max(0.0, float(done)))})

    return Task(task["config"], progress)


def _table(
    task: Mapping[str, Any], name: str, source: BinaryIO, answers: BinaryIO, wanted: list[str] | None = None
) -> Table:
    """A table of the task; of one that is kept in a file only the columns that are wanted, all if None."""
    value = task[name]
    if "bytes" not in value:
        return Table(value["columns"], value["data"])
    from services.models.runners import parquet

    return parquet.ParquetTable(RangeFile(name, value["bytes"], source, answers), wanted or value["columns"])


def _failure(reason: str, message: str) -> dict[str, Any]:
    return {"failed": reason, "message": message}


def _line(text: str) -> str:
    return " ".join(text.split())[:_TOLD]


def _print_error() -> None:
    import traceback

    traceback.print_exc()
    sys.stderr.flush()
