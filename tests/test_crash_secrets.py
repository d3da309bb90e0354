"""`kill -9` of the secrets service at every step of what is asked of it: no key is lost, and none comes back."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count

import grpc
import pytest
import sqlalchemy as sa

from strongroom.models.v1 import rotation_pb2, rotation_pb2_grpc
from tests.models_installation import noise
from tests.mortal import Attempt, MortalSecrets, mortal_secrets

SIZE = 50_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalSecrets]:
    with mortal_secrets(tmp_path_factory.mktemp("secrets")) as made:
        yield made


def at_every_step(running: MortalSecrets, act: Callable[[int], object]) -> Iterator[tuple[int, Attempt]]:
    """Does something over and over, the service dying one step later each time, until it survives."""
    for step in count(1):
        attempt = running.attempt(step, lambda step=step: act(step))
        yield step, attempt
        if attempt.died_at is None:
            assert step > 2, "the steps are not seen any more"
            return


def keys(running: MortalSecrets) -> set[str]:
    with closing(sa.create_engine(f"sqlite:///{running.folder}/db/strongroom-secrets.db").connect()) as connection:
        return set(connection.scalars(sa.text("SELECT id FROM keys")))


def rotate(running: MortalSecrets) -> rotation_pb2.RotateKeysResponse:
    stub = rotation_pb2_grpc.RotationServiceStub(running.admin.channel)
    answer: rotation_pb2.RotateKeysResponse = running.admin.call(
        stub.RotateKeys, rotation_pb2.RotateKeysRequest(manager_id="default")
    )
    return answer


@pytest.mark.slow
@pytest.mark.row("S4.6")
def test_killed_at_any_step_of_a_rotation(running: MortalSecrets) -> None:
    """Every key opens, under the old wrapping or the new one; a rotation repeated succeeds."""
    content = noise(1, SIZE)
    running.admin.push("kept", {"w": content})
    before = keys(running)
    for _, attempt in at_every_step(running, lambda _step: rotate(running)):
        assert keys(running) == before, attempt.died_at
        # Another models service, which remembers no key.
        with running.installation.models() as address, grpc.insecure_channel(address) as channel:
            caller = type(running.admin)(channel, running.installation.tokens, running.admin.principal)
            assert caller.read("kept", "w") == content, attempt.died_at
    receipt = rotate(running)
    assert receipt.to_version == receipt.from_version + 1
    assert receipt.rewrapped_keys == len(before)
    running.admin.delete("kept")


def test_killed_at_any_step_of_a_commit(running: MortalSecrets) -> None:
    """The version is not there, and the same commit succeeds; what key was made for nothing is collected."""
    uploads: dict[int, str] = {}
    before = keys(running)

    def commit(step: int) -> object:
        return running.admin.commit(uploads[step], {"w": noise(step, SIZE)})

    for step in range(1, 50):
        uploads[step] = running.admin.create(f"v{step}").upload_id
        running.admin.write(uploads[step], [noise(step, SIZE)])
        attempt = running.attempt(step, lambda step=step: commit(step))
        commit(step)
        assert running.admin.read(f"v{step}", "w") == noise(step, SIZE)
        running.admin.delete(f"v{step}")
        if attempt.died_at is None:
            break
    running.admin.collect()
    assert keys(running) == before


def test_killed_at_any_step_of_a_deletion(running: MortalSecrets) -> None:
    """The version is gone whatever becomes of the secrets service; its key goes with the next collection."""
    before = keys(running)
    for step in count(1):
        running.admin.push(f"v{step}", {"w": noise(step, SIZE)})
        attempt = running.attempt(step, lambda step=step: running.admin.delete(f"v{step}"))
        assert attempt.answered, "a deletion does not wait for the secrets service"
        running.admin.collect()
        assert keys(running) == before, attempt.died_at
        if attempt.died_at is None:
            break
