"""`kill -9` of the models service at every single step of what it does: the old state or the new one, never a third.

`test_crash.py` kills a whole installation around the steps of a large upload; here each step is named and none is
left out, on SQLite and on PostgreSQL.
"""

import time
from collections.abc import Callable, Iterator
from itertools import count

import grpc
import pytest
import sqlalchemy as sa

from strongroom.models.v1 import maintenance_pb2
from tests.models_installation import noise
from tests.mortal import Attempt, Mortal, mortal

SIZE = 300_000


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with mortal(tmp_path_factory.mktemp("steps")) as made:
        yield made


@pytest.fixture(scope="module")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgresql_url: str) -> Iterator[Mortal]:
    with mortal(tmp_path_factory.mktemp("steps"), postgresql_url) as made:
        yield made


# Files are the same under either database; only transactions differ.
@pytest.fixture(params=["on_sqlite", "on_postgresql"])
def running(request: pytest.FixtureRequest) -> Mortal:
    made: Mortal = request.getfixturevalue(request.param)
    return made


def at_every_step(
    running: Mortal, prepare: Callable[[str], Callable[[], object]]
) -> Iterator[tuple[str, bytes, Attempt]]:
    """Prepares a version's name and dies at the first step of what `prepare` returned, then at the second of another…

    Yields each name, its content and what became of it, until there are no more steps.
    """
    for step in count(1):
        name = f"v{step}"
        attempt = running.attempt(step, prepare(name))
        yield name, content_of(name), attempt
        if attempt.died_at is None:
            assert step > 5, "the steps are not seen any more"
            return


def content_of(name: str) -> bytes:
    return noise(int(name[1:]), SIZE)


def exists(running: Mortal, version: str) -> bool:
    try:
        running.admin.show(version)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def assert_whole(running: Mortal, version: str, content: bytes, step: str | None) -> None:
    assert running.admin.read(version, "w") == content, step
    assert running.admin.verify(version).is_valid, step


def assert_clean(running: Mortal) -> None:
    """Nothing is left of deleted versions and of uploads given up: no file, no key, no row that collection counts."""
    running.admin.collect()
    running.admin.collect()
    assert running.stored() == []
    assert running.admin.collect(dry_run=True) == maintenance_pb2.CollectGarbageResponse()


@pytest.mark.slow
def test_killed_at_any_step_of_a_write(on_sqlite: Mortal) -> None:
    """What the service said it has, it has; the rest is sent again, and the upload goes on where it was."""
    uploads = {}

    def prepare(name: str) -> Callable[[], object]:
        uploads[name] = on_sqlite.admin.create(name).upload_id
        return lambda: on_sqlite.admin.write(uploads[name], [content_of(name)])

    for name, content, attempt in at_every_step(on_sqlite, prepare):
        assert on_sqlite.admin.create(name).upload_id == uploads[name]
        [present] = on_sqlite.admin.has(uploads[name], [content])
        assert present or not attempt.answered, attempt.died_at
        if not present:
            on_sqlite.admin.write(uploads[name], [content])
        on_sqlite.admin.commit(uploads[name], {"w": content})
        assert_whole(on_sqlite, name, content, attempt.died_at)
        on_sqlite.admin.delete(name)
    assert_clean(on_sqlite)


@pytest.mark.slow
@pytest.mark.row("B1")
def test_killed_at_any_step_of_a_commit(running: Mortal) -> None:
    """The version is there, whole, or not at all; whichever, the same commit repeated succeeds."""
    uploads = {}

    def prepare(name: str) -> Callable[[], object]:
        uploads[name] = running.admin.create(name).upload_id
        running.admin.write(uploads[name], [content_of(name)])
        return lambda: running.admin.commit(uploads[name], {"w": content_of(name)})

    for name, content, attempt in at_every_step(running, prepare):
        if exists(running, name):
            assert_whole(running, name, content, attempt.died_at)
        else:
            assert not attempt.answered, attempt.died_at
        again = running.admin.commit(uploads[name], {"w": content})
        assert again.version == name
        assert_whole(running, name, content, attempt.died_at)
        running.admin.delete(name)
    assert_clean(running)


def test_killed_at_any_step_of_a_deletion(running: Mortal) -> None:
    """The version is whole or gone; gone it stays, and what a crash kept of it on disk is collected."""

    def prepare(name: str) -> Callable[[], object]:
        running.admin.push(name, {"w": content_of(name)})
        return lambda: running.admin.delete(name)

    for name, content, attempt in at_every_step(running, prepare):
        if exists(running, name):
            assert not attempt.answered, attempt.died_at
            assert_whole(running, name, content, attempt.died_at)
            running.admin.delete(name)
        upload = running.admin.create(name).upload_id
        assert running.admin.has(upload, [content]) == [0], f"killed at {attempt.died_at}, a deleted chunk is there"
        running.admin.abort(upload)
    assert_clean(running)


@pytest.mark.slow
def test_killed_at_any_step_of_a_collection(on_sqlite: Mortal) -> None:
    """Garbage goes, sooner or later; what is no garbage stays, an upload in flight too."""
    on_sqlite.admin.push("kept", {"w": noise(1000, SIZE)})
    flying = on_sqlite.admin.create("flying").upload_id
    on_sqlite.admin.write(flying, [noise(1001, SIZE)])

    def prepare(name: str) -> Callable[[], object]:
        # Garbage: the packs of a version deleted, the chunks of an upload given up.
        on_sqlite.admin.push(name, {"w": content_of(name)})
        on_sqlite.admin.delete(name)
        upload = on_sqlite.admin.create(name).upload_id
        on_sqlite.admin.write(upload, [noise(2000, SIZE)])
        on_sqlite.admin.abort(upload)
        return on_sqlite.admin.collect

    for _name, _content, attempt in at_every_step(on_sqlite, prepare):
        assert_whole(on_sqlite, "kept", noise(1000, SIZE), attempt.died_at)
        on_sqlite.admin.collect()
        assert len(on_sqlite.stored("packs")) == 2, f"killed at {attempt.died_at}, garbage stays"
    assert on_sqlite.admin.has(flying, [noise(1001, SIZE)]) == [1]
    on_sqlite.admin.commit(flying, {"w": noise(1001, SIZE)})
    assert_whole(on_sqlite, "flying", noise(1001, SIZE), None)
    on_sqlite.admin.delete("kept")
    on_sqlite.admin.delete("flying")
    assert_clean(on_sqlite)


def test_what_was_deleted_before_a_crash_is_not_on_disk_after_it(on_sqlite: Mortal) -> None:
    """SQLite keeps deleted rows in its write-ahead log until that is emptied: who was killed before does it at last."""
    database = on_sqlite.models_database()
    for step in count(1):
        on_sqlite.admin.push(f"v{step}", {"w": noise(3000 + step, SIZE)})
        with database.connect() as connection:
            salts = list(connection.scalars(sa.text("SELECT salt FROM chunks")))
        database.dispose()
        attempt = on_sqlite.attempt(step, lambda name=f"v{step}": on_sqlite.admin.delete(name))
        if exists(on_sqlite, f"v{step}"):
            on_sqlite.admin.delete(f"v{step}")
        files = list((on_sqlite.folder / "db").glob("strongroom-models*"))
        deadline = time.monotonic() + 10
        while any(salt in file.read_bytes() for salt in salts for file in files):
            assert time.monotonic() < deadline, f"killed at {attempt.died_at}, a shredded salt stays on disk"
            time.sleep(0.05)
        if attempt.died_at is None:
            break
    assert_clean(on_sqlite)
