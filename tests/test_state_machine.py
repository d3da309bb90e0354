"""Weights against a simple model, whatever is done to them in whatever order, and wherever the service dies.

Uploads, plain files, commits, deletions, collections, expiry and `kill -9` at any step of each. Nothing acknowledged is
lost, nothing deleted is ever read, a call without an answer was done wholly or not at all, and nothing is left behind.

    STRONGROOM_EXAMPLES=500 python -m pytest --no-cov tests/test_state_machine.py    # on demand
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from strongroom.models.v1 import maintenance_pb2
from tests.models_installation import noise
from tests.mortal import Attempt, Mortal, mortal
from tests.uploads import chunks_of

EXAMPLES = int(os.environ.get("STRONGROOM_EXAMPLES", "0"))
MODEL = "scorer"
# Few, so that versions share chunks. The last has several.
SIZES = [1, 4080, 50_000, 200_000, 900_000]

Code = grpc.StatusCode
versions_ = st.sampled_from(["v1", "v2", "v3"])
pieces_ = st.sets(st.sampled_from(range(len(SIZES))), min_size=1, max_size=3)
# Half of the time nothing happens. A deletion has 8 steps, a commit 15, a plain file 30.
death_ = st.one_of(st.just(0), st.just(0), st.integers(1, 9), st.integers(1, 30))


@dataclass
class Upload:
    """An open upload: chunks that it surely holds, and those that it may hold, since a call was not answered."""

    id: str
    held: set[int] = field(default_factory=set)
    perhaps: set[int] = field(default_factory=set)


class Weights(RuleBasedStateMachine):
    """What should be there, beside what is."""

    running: ClassVar[Mortal]
    _numbers: ClassVar[Iterator[int]] = count()
    _ahead: ClassVar[timedelta] = timedelta()

    def __init__(self) -> None:
        super().__init__()
        # Of this run alone: earlier ones, which may have failed, share the installation.
        self.number = next(self._numbers)
        self.versions: dict[str, set[int]] = {}
        self.uploads: dict[str, Upload] = {}
        # Held by plain files that were not answered, until they expire.
        self.orphans: set[int] = set()
        # Chunks without a holder that no collection has seen yet.
        self.garbage: set[int] = set()
        self.dead_keys: set[str] = set()
        # Of versions that are gone by a call that was not answered: the next collection destroys them.
        self.dying_keys: set[str] = set()

    # What is done

    @rule(version=versions_, death=death_)
    def create(self, version: str, death: int) -> None:
        if version in self.versions:
            assert refusal(lambda: self.admin.create(self.named(version))) == Code.ALREADY_EXISTS
            return
        attempt = self.attempt(death, lambda: self.admin.create(self.named(version)))
        created = attempt.answer or self.admin.create(self.named(version))
        known = self.uploads.setdefault(version, Upload(created.upload_id))
        assert known.id == created.upload_id, "an open upload is resumed, not opened twice"

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), pieces=pieces_, death=death_)
    def write(self, data: st.DataObject, pieces: set[int], death: int) -> None:
        upload = self.uploads[data.draw(st.sampled_from(sorted(self.uploads)))]
        attempt = self.attempt(death, lambda: self.admin.write(upload.id, self.chunks(pieces)))
        (upload.held if attempt.answered else upload.perhaps).update(pieces)

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), pieces=pieces_)
    def ask(self, data: st.DataObject, pieces: set[int]) -> None:
        """Asks which chunks are there; those that are, are kept for the upload from then on."""
        upload = self.uploads[data.draw(st.sampled_from(sorted(self.uploads)))]
        there = {piece for piece in pieces if all(self.admin.has(upload.id, self.chunks([piece])))}
        certain, possible = self.certain(), self.possible()
        assert there >= pieces & (certain | upload.held), "what a version or this upload holds is there"
        assert there <= possible, "what nobody holds any more is not there"
        upload.held |= there

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), pieces=pieces_, death=death_)
    def commit(self, data: st.DataObject, pieces: set[int], death: int) -> None:
        version = data.draw(st.sampled_from(sorted(self.uploads)))
        upload = self.uploads[version]
        act = lambda: self.admin.commit(upload.id, self.files(pieces))  # noqa: E731
        if version in self.versions:
            assert refusal(act) == Code.ALREADY_EXISTS
            return
        certain, possible = self.certain() | upload.held, self.possible()
        attempt = None
        with allowing(Code.FAILED_PRECONDITION):
            attempt = self.attempt(death, act)
        if attempt is None:
            assert not pieces <= certain, "a commit of chunks that are there is refused"
        elif self.settle(version, pieces, attempt):
            assert pieces <= possible, "a commit of chunks that are not there is accepted"
            self.let_go(upload)
            del self.uploads[version]

    @rule(version=versions_, pieces=pieces_, death=death_)
    def put(self, version: str, pieces: set[int], death: int) -> None:
        """A plain file of one piece."""
        piece = min(pieces)
        act = lambda: self.admin.put(self.named(version), str(piece), [self.content(piece)])  # noqa: E731
        if version in self.versions:
            assert refusal(act) == Code.ALREADY_EXISTS
            return
        attempt = self.attempt(death, act)
        if not self.settle(version, {piece}, attempt):
            self.orphans.add(piece)

    @rule(version=versions_, death=death_)
    def delete(self, version: str, death: int) -> None:
        if version not in self.versions:
            assert refusal(lambda: self.admin.delete(self.named(version))) == Code.NOT_FOUND
            return
        key = self.data_key(version)
        attempt = self.attempt(death, lambda: self.admin.delete(self.named(version)))
        if not attempt.answered and self.exists(version):
            return
        pieces = self.versions.pop(version)
        (self.dead_keys if attempt.answered else self.dying_keys).add(key)
        if attempt.answered:
            distinct = {chunk for piece in pieces for chunk in self.chunks([piece])}
            assert attempt.answer.shredded_chunks + attempt.answer.shared_chunks == len(distinct)
            self.assert_destroyed()
        self.assert_shredded(pieces - self.possible(but_garbage=True))

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), death=death_)
    def abort(self, data: st.DataObject, death: int) -> None:
        version = data.draw(st.sampled_from(sorted(self.uploads)))
        upload = self.uploads[version]
        self.attempt(death, lambda: self.admin.abort(upload.id))
        self.admin.abort(upload.id)
        self.let_go(self.uploads.pop(version))

    @rule(death=death_, min_age=st.sampled_from([0, None]))
    def collect(self, death: int, min_age: int | None) -> None:
        attempt = self.attempt(death, lambda: self.admin.collect(min_age))
        if attempt.answered:
            self.garbage = set()
            self.assert_collected()

    @rule(death=death_)
    def expire(self, death: int) -> None:
        """A day passes without a sign of life: uploads end, whatever they held."""
        Weights._ahead += timedelta(hours=25)
        self.running.put_clock_ahead(self._ahead)
        self.attempt(death, lambda: self.admin.collect(None))
        self.admin.collect(None)
        while self.uploads:
            _, upload = self.uploads.popitem()
            assert refusal(lambda: self.admin.has(upload.id, [b"x"])) == Code.NOT_FOUND  # noqa: B023
        self.orphans, self.garbage = set(), set()
        self.assert_collected()

    @rule()
    def crash(self) -> None:
        self.running.restart()

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.assert_whole(data.draw(st.sampled_from(sorted(self.versions))))

    # What holds

    @invariant()
    def exactly_the_versions_that_should_be_there_are_listed(self) -> None:
        listed: set[str] = set()
        with allowing(Code.NOT_FOUND):
            listed = {version.version for version in self.admin.list_versions().versions}
        assert listed == {self.named(version) for version in self.versions}

    def teardown(self) -> None:
        for version in sorted(self.versions):
            self.assert_whole(version)
            self.delete(version, 0)
        self.expire(0)
        self.admin.collect()
        assert self.leftovers() == [], "files that nothing refers to"
        assert self.admin.collect(dry_run=True) == maintenance_pb2.CollectGarbageResponse()
        self.assert_destroyed()

    def leftovers(self) -> list[Path]:
        """Files in any store."""
        return self.running.stored()

    def assert_whole(self, version: str) -> None:
        for path, content in self.files(self.versions[version]).items():
            assert self.admin.read(self.named(version), path) == content
        assert self.admin.verify(self.named(version)).is_valid

    def assert_shredded(self, pieces: Iterable[int]) -> None:
        """No chunk of the pieces can be had any more: its row, and with it the only copy of its salt, is gone."""
        for piece in pieces:
            probe = self.admin.create(self.named("probe")).upload_id
            present = self.admin.has(probe, self.chunks([piece]))
            self.admin.abort(probe)
            assert not any(present), "a deleted chunk is there still"

    def assert_collected(self) -> None:
        self.dead_keys |= self.dying_keys
        self.assert_destroyed()

    def assert_destroyed(self) -> None:
        """The data keys of deleted versions are gone from the secrets service."""
        engine = sa.create_engine(f"sqlite:///{self.running.folder}/db/strongroom-secrets.db")
        with engine.connect() as connection:
            keys = set(connection.scalars(sa.text("SELECT id FROM keys")))
        engine.dispose()
        assert not keys & self.dead_keys

    # The model

    def certain(self) -> set[int]:
        """Pieces whose chunks some version holds."""
        return set().union(*self.versions.values())

    def possible(self, *, but_garbage: bool = False) -> set[int]:
        """Pieces whose chunks may be there."""
        held = [upload.held | upload.perhaps for upload in self.uploads.values()]
        return self.certain().union(*held, self.orphans, set() if but_garbage else self.garbage)

    def let_go(self, upload: Upload) -> None:
        self.garbage |= upload.held | upload.perhaps

    def settle(self, version: str, pieces: set[int], attempt: Attempt) -> bool:
        """Finds out whether the version has come to be, and that it is whole."""
        if not attempt.answered and not self.exists(version):
            return False
        self.versions[version] = set(pieces)
        if attempt.died_at is not None:
            self.assert_whole(version)
        return True

    # The service

    @property
    def admin(self) -> Any:
        return _OfModel(self.running.admin, self.model)

    @property
    def model(self) -> str:
        return f"{MODEL}-{self.number}"

    def attempt(self, death: int, act: Callable[[], Any]) -> Attempt:
        return self.running.attempt(death, act) if death else Attempt(None, answered=True, answer=act())

    def named(self, version: str) -> str:
        return f"{version}-{self.number}"

    def content(self, piece: int) -> bytes:
        return noise(1000 * self.number + piece, SIZES[piece])

    def chunks(self, pieces: Iterable[int]) -> list[bytes]:
        return [chunk for piece in sorted(pieces) for chunk in chunks_of("w", self.content(piece))]

    def files(self, pieces: Iterable[int]) -> dict[str, bytes]:
        return {str(piece): self.content(piece) for piece in sorted(pieces)}

    def exists(self, version: str) -> bool:
        return refusal(lambda: self.admin.show(self.named(version))) != Code.NOT_FOUND

    def data_key(self, version: str) -> str:
        engine = self.running.models_database()
        with engine.connect() as connection:
            query = sa.text("SELECT data_key_id FROM versions WHERE name = :name")
            key = connection.scalar(query, {"name": self.named(version)})
        engine.dispose()
        return str(key)


class _OfModel:
    """A caller's methods with the model filled in."""

    def __init__(self, caller: Any, model: str) -> None:
        self._caller = caller
        self._model = model

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._caller, name)
        if name == "collect":
            return method
        return lambda *arguments: method(*arguments, model=self._model)


def refusal(act: Callable[[], Any]) -> grpc.StatusCode | None:
    """The code with which a call is refused; None if it is not."""
    try:
        act()
    except grpc.RpcError as error:
        return error.code()
    return None


@contextmanager
def allowing(code: grpc.StatusCode) -> Iterator[None]:
    """The block's call may be refused so."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() != code:
            raise


def run(running: Mortal, examples: int, machine: type[Weights] = Weights) -> None:
    """Plays with the machine on an installation of its own."""
    Weights.running = running
    Weights._ahead = timedelta()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.slow
@pytest.mark.row("B1")
@pytest.mark.timeout(3600)
def test_weights_are_as_the_model_says_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> None:
    with mortal(tmp_path_factory.mktemp("machine")) as running:
        run(running, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_weights_are_as_the_model_says_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, postgresql_url: str
) -> None:
    with mortal(tmp_path_factory.mktemp("machine"), postgresql_url) as running:
        run(running, 3)
