"""P9: what a hundred thousand versions cost those who list, resolve an alias and push.

The versions are rows, written into the database of an installation that is down; what is measured goes through the
gateway of the one that is up again.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import grpc

from bench.figures import Row, Samples
from strongroom.models.v1 import catalog_pb2, catalog_pb2_grpc, models_pb2, models_pb2_grpc
from tests.stack import RunningStack, Stack
from tests.uploads import Uploads

_SIZES = (100, 10_000, 100_000)
_MODEL = "grown"
# Calls of one kind in a run, and of the first that are not counted.
_CALLS = 20
_UNCOUNTED = 10

_Works = dict[str, Callable[[], object]]


def measure(folder: Path, runs: int) -> list[Row]:
    """Grows an installation to each size, and asks them in turn, so that a slow minute of the machine hits all."""
    data = {size: folder / f"growth-{size}" for size in _SIZES}
    for size, place in data.items():
        with RunningStack(place) as stack, grpc.insecure_channel(stack.target) as channel:
            Uploads(channel, stack.admin_key).push(_MODEL, "first", {"w": b"first"})
        _grow(place, size)
    with ExitStack() as running:
        works = {size: _works(running.enter_context(RunningStack(place)), running) for size, place in data.items()}
        return [row for work in works[_SIZES[0]] for row in _rows(work, _alternated(work, works, runs))]


def _alternated(work: str, works: dict[int, _Works], runs: int) -> list[Samples]:
    samples = {size: Samples(f"{work}, {size}") for size in _SIZES}
    for call in range(runs * _CALLS):
        for size in _SIZES:
            if call < _UNCOUNTED:
                works[size][work]()
            else:
                with samples[size].timed():
                    works[size][work]()
    return list(samples.values())


def _rows(work: str, taken: list[Samples]) -> list[Row]:
    small, *larger = taken
    rows = []
    for size, samples in zip(_SIZES[1:], larger, strict=True):
        ratio = samples.median / small.median
        figure = f"{ratio:.2f} × ({samples.median * 1000:.2f} ms, {small.median * 1000:.2f} ms at {_SIZES[0]})"
        largest = size == _SIZES[-1]
        target = "≤ 2 ×" if largest else "—"
        rows.append(Row("P9", f"{work}, {size:,} versions", figure, target, ratio <= 2 if largest else None))
    return rows


def _works(stack: Stack, running: ExitStack) -> _Works:
    metadata = [("x-api-key", stack.admin_key)]
    channel = running.enter_context(grpc.insecure_channel(stack.target))
    models = models_pb2_grpc.ModelServiceStub(channel)
    catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
    names = {"manager_id": "default", "model_name": _MODEL}
    uploads = Uploads(channel, stack.admin_key)
    catalog.SetAlias(catalog_pb2.SetAliasRequest(**names, alias="champion", version="first"), metadata=metadata)

    # As many as there are at the smallest size.
    some_models = models_pb2.ListModelsRequest(manager_id="default", page_size=5)
    some_versions = models_pb2.ListVersionsRequest(**names, page_size=50)
    champion = catalog_pb2.GetAliasRequest(**names, alias="champion")
    return {
        "list 5 models": lambda: models.ListModels(some_models, metadata=metadata),
        "list 50 versions": lambda: models.ListVersions(some_versions, metadata=metadata),
        "resolve an alias": lambda: catalog.GetAlias(champion, metadata=metadata),
        "push a tiny version": lambda: uploads.push(_MODEL, f"tiny-{os.urandom(8).hex()}", {"w": os.urandom(64)}),
    }


def _grow(data: Path, size: int) -> None:
    """Copies the first version's row, and its chunk with it, until there are so many; half of them in models of their
    own, ten versions each."""
    [file] = (data / "db").glob("*-models.db")
    with closing(sqlite3.connect(file)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(versions)") if row[1] != "id"]
        query = f"SELECT id, {', '.join(columns)} FROM versions WHERE name = 'first'"  # noqa: S608 - our own columns
        number, *values = database.execute(query).fetchone()
        first = dict(zip(columns, values, strict=True))
        chunks = [row[0] for row in database.execute("SELECT chunk FROM version_chunks WHERE version = ?", [number])]
        [there] = database.execute("SELECT count(*) FROM versions").fetchone()
        model, left = first["model_id"], 0
        for grown in range(there, size):
            if grown % 2 == 0 and left == 0:
                model, left = _add_model(database, f"other-{grown}"), 10
            in_other = grown % 2 == 0
            left -= in_other
            unique = os.urandom(13).hex()
            row = first | {"uid": unique, "name": unique, "data_key_id": unique, "manifest_key": unique}
            row["model_id"] = model if in_other else first["model_id"]
            marks = ", ".join(f":{column}" for column in columns)
            insert = f"INSERT INTO versions ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            added = database.execute(insert, row).lastrowid
            database.executemany("INSERT INTO version_chunks VALUES (?, ?)", [(added, chunk) for chunk in chunks])
        database.execute(
            "UPDATE models SET versions_count = (SELECT count(*) FROM versions WHERE model_id = models.id)"
        )


def _add_model(database: sqlite3.Connection, name: str) -> int:
    columns = "manager_id, versions_count, created_at, updated_at"
    copied = f"INSERT INTO models (name, {columns}) SELECT ?, {columns} FROM models WHERE name = ?"  # noqa: S608
    added = database.execute(copied, [name, _MODEL]).lastrowid
    assert added is not None
    return added
