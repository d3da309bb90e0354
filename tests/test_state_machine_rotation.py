"""The state machine once more, on a manager whose keys are rotated and whose versions are re-encrypted meanwhile."""

import time
from collections.abc import Iterator

import pytest
from hypothesis.stateful import precondition, rule

from strongroom.models.v1 import rotation_pb2, rotation_pb2_grpc
from tests.mortal import Mortal, mortal
from tests.test_state_machine import Code, Weights, allowing, death_, refusal, run


class Rotated(Weights):
    """Rotation changes nothing that anybody sees; re-encryption ends uploads, and the keys of before."""

    @rule(death=death_)
    def rotate(self, death: int) -> None:
        request = rotation_pb2.RotateKeysRequest(manager_id="default")
        attempt = self.attempt(death, lambda: self.call("RotateKeys", request))
        again = self.call("RotateKeys", request)
        assert again.to_version == again.from_version + 1
        if attempt.answered:
            assert again.from_version == attempt.answer.to_version

    @precondition(lambda self: self.versions)
    @rule(death=death_)
    def reencrypt(self, death: int) -> None:
        self.dead_keys |= {self.data_key(version) for version in self.versions}
        request = rotation_pb2.ReencryptRequest(manager_id="default")
        attempt = self.attempt(death, lambda: self.call("Reencrypt", request))
        with allowing(Code.FAILED_PRECONDITION):  # it has begun, although nobody heard so
            self.await_end((attempt.answer or self.call("Reencrypt", request)).reencryption_id)
        self.await_rest()
        while self.uploads:
            _, upload = self.uploads.popitem()
            assert refusal(lambda: self.admin.has(upload.id, [b"x"])) == Code.NOT_FOUND  # noqa: B023
        self.orphans, self.garbage = set(), set()
        self.admin.collect(None)
        self.assert_destroyed()
        for version in self.versions:
            self.assert_whole(version)

    def await_end(self, job: str) -> None:
        request = rotation_pb2.GetReencryptionRequest(manager_id="default", reencryption_id=job)
        deadline = time.monotonic() + 100
        while (found := self.call("GetReencryption", request)).state == "running":
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        assert found.state == "done", found

    def await_rest(self) -> None:
        """Returns once no re-encryption runs: then one may begin, and has nothing to do for long."""
        deadline = time.monotonic() + 100
        while True:
            with allowing(Code.FAILED_PRECONDITION):
                begun = self.call("Reencrypt", rotation_pb2.ReencryptRequest(manager_id="default"))
                self.await_end(begun.reencryption_id)
                return
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def call(self, method: str, request: object) -> object:
        caller = self.running.admin
        stub = rotation_pb2_grpc.RotationServiceStub(caller.channel)
        return caller.call(getattr(stub, method), request)


@pytest.fixture
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with mortal(tmp_path_factory.mktemp("rotation")) as made:
        yield made


@pytest.mark.slow
@pytest.mark.row("S4.6")
@pytest.mark.timeout(3600)
def test_weights_are_as_the_model_says_while_keys_rotate(running: Mortal) -> None:
    run(running, 4, Rotated)
