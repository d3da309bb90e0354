"""Everything at once, by callers who are in each other's way: whoever loses hears why, and nothing is torn.

Several write, commit, put, delete and read the same few versions, made of the same few chunks, on two replicas, while
garbage is collected without a pause and with no minimum age.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import grpc
import pytest

from strongroom.models.v1 import maintenance_pb2
from tests.models_installation import MODEL, Caller, noise
from tests.mortal import Mortal, mortal
from tests.uploads import chunks_of

SECONDS = 5
CALLERS = 6
VERSIONS = [f"v{number}" for number in range(4)]
PIECES = [noise(number, 30_000) for number in range(4)]

Code = grpc.StatusCode
# Exists by now; gone by now; its chunks are; collected meanwhile.
LOST = {Code.ALREADY_EXISTS, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.ABORTED}


@pytest.fixture(params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Mortal]]:
    url = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else ""
    with ExitStack() as stack:
        one = stack.enter_context(mortal(tmp_path_factory.mktemp("races"), url))
        another = one.replica()
        stack.callback(another.kill)
        yield [one, another]


def anything(caller: Caller, chance: random.Random) -> None:
    """One thing that a caller might do; AssertionError if what is read is not what was written."""
    version, chosen = chance.choice(VERSIONS), chance.sample(range(len(PIECES)), 2)
    files = {str(number): PIECES[number] for number in chosen}
    path = str(chosen[0])
    acts: list[Callable[[], object]] = [
        lambda: caller.push(version, files),
        lambda: caller.push(version, files),
        lambda: caller.put(version, path, [files[path]]),
        lambda: caller.delete(version),
        lambda: caller.abort(caller.create(version).upload_id),
        lambda: committed_without_sending(caller, version, files),
        lambda: read_back(caller, version),
    ]
    chance.choice(acts)()


def committed_without_sending(caller: Caller, version: str, files: dict[str, bytes]) -> None:
    """Commits what is there already: either it is kept from the answer on, or it is told as missing."""
    upload = caller.create(version).upload_id
    chunks = [chunk for item in files.items() for chunk in chunks_of(*item)]
    present = caller.has(upload, chunks)
    caller.write(upload, [chunk for chunk, there in zip(chunks, present, strict=True) if not there])
    caller.commit(upload, files)


def read_back(caller: Caller, version: str) -> None:
    for file in caller.show(version).files:
        assert caller.read(version, file.path) == PIECES[int(file.path)]


@pytest.mark.slow
def test_nothing_is_torn(replicas: list[Mortal]) -> None:
    end = time.monotonic() + SECONDS
    failures: list[BaseException] = []
    done: list[bool] = []

    def keep(act: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end:
                try:
                    act()
                    done.append(True)
                except grpc.RpcError as error:
                    if error.code() not in LOST:
                        raise
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=keep, args=[replicas[0].admin.collect])]
    for number in range(CALLERS):
        # Some share a name, and with it their uploads.
        caller = replicas[number % 2].caller(f"caller-{number // 2}")
        threads.append(threading.Thread(target=keep, args=[partial(anything, caller, random.Random(number))]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(done) > CALLERS
    assert_sound_and_empty(replicas[0])


def assert_sound_and_empty(running: Mortal) -> None:
    """What is left is whole, and can be deleted until nothing is."""
    admin = running.admin
    left = []
    try:
        left = [version.version for version in admin.list_versions(MODEL).versions]
    except grpc.RpcError as error:
        if error.code() != Code.NOT_FOUND:
            raise
    for version in left:
        assert admin.verify(version).is_valid
        read_back(admin, version)
        admin.delete(version)
    for number in range(CALLERS // 2):
        for version in VERSIONS:
            caller = running.caller(f"caller-{number}")
            # Two who shared the name may have opened one each at the same moment.
            is_left = True
            while is_left:
                opened = caller.create(version)
                caller.abort(opened.upload_id)
                is_left = opened.resumed
    # Uploads of plain files cannot be resumed: those that lost a race are given up by then.
    admin.collect()
    admin.collect()
    assert running.stored() == []
    assert admin.collect(dry_run=True) == maintenance_pb2.CollectGarbageResponse()
