"""The state machine once more, on a primary and two replicas that go down and come back.

Nothing acknowledged is lost: once copied, a version is read from either replica while every other store is down. What
is deleted is in no store any more when all of them were back for a collection.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.mortal import Mortal, mortal
from tests.replicated import NAMES, stores_file
from tests.test_state_machine import Weights, death_, run

MAIN, *REPLICAS = NAMES
replicas_ = st.sampled_from(REPLICAS)


class Replicated(Weights):
    """What is done while replicas are up or down is the same; `down` names those that are."""

    def __init__(self) -> None:
        super().__init__()
        self.down: set[str] = set()

    @precondition(lambda self: len(self.down) < len(REPLICAS))
    @rule(name=replicas_)
    def goes_down(self, name: str) -> None:
        if name not in self.down:
            self.take(name)
            self.down.add(name)

    @precondition(lambda self: self.down)
    @rule(name=replicas_)
    def comes_back(self, name: str) -> None:
        if name in self.down:
            self.give_back(name)
            self.down.remove(name)

    @rule(death=death_)
    def replicate(self, death: int) -> None:
        """Dead in the middle of it or not: in the end every store has what it shall have."""
        self.all_back()
        self.attempt(death, self.running.admin.sync_stores)
        self.await_copies()

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), name=replicas_)
    def read_from_one_replica(self, data: st.DataObject, name: str) -> None:
        self.all_back()
        self.await_copies()
        version = data.draw(st.sampled_from(sorted(self.versions)))
        others = [other for other in NAMES if other != name]
        with ExitStack() as stack:
            for other in others:
                self.take(other)
                stack.callback(self.give_back, other)
            for path, content in self.files(self.versions[version]).items():
                assert self.admin.read(self.named(version), path) == content

    def teardown(self) -> None:
        self.all_back()
        super().teardown()

    def leftovers(self) -> list[Path]:
        """Collected once more: what was copied while the last collection ran is found by this one."""
        self.await_copies()
        self.admin.collect()
        kinds = [self.folder(name) / kind for name in NAMES for kind in ("packs", "manifests")]
        return [path for kind in kinds for path in kind.rglob("*") if path.is_file()]

    # The stores

    def folder(self, name: str) -> Path:
        return self.running.folder / name

    def take(self, name: str) -> None:
        """The store does not answer: a file is in its place."""
        self.folder(name).rename(self.folder(name).with_suffix(".aside"))
        self.folder(name).touch()

    def give_back(self, name: str) -> None:
        self.folder(name).unlink()
        self.folder(name).with_suffix(".aside").rename(self.folder(name))

    def all_back(self) -> None:
        while self.down:
            self.give_back(self.down.pop())

    def await_copies(self) -> None:
        """Waits until no store lacks anything; what failed is due after minutes, which pass at once."""
        deadline = time.monotonic() + 60
        while any(store.pending_objects for store in self.running.admin.show_stores().stores):
            assert time.monotonic() < deadline, self.running.admin.show_stores()
            Weights._ahead += timedelta(minutes=1)
            self.running.put_clock_ahead(self._ahead)
            time.sleep(0.05)


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("machine-replicas")
    with mortal(folder, stores=str(stores_file(folder)), sync_seconds=0.05) as made:
        yield made


@pytest.mark.slow
@pytest.mark.row("S4.5")
@pytest.mark.timeout(3600)
def test_weights_are_as_the_model_says_while_stores_come_and_go(running: Mortal) -> None:
    run(running, 2, Replicated)
