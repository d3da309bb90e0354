"""`kill -9` at every step of a move of the root key: everything opens, and the move is brought to its end."""

from contextlib import closing
from itertools import count
from pathlib import Path

import grpc
import pytest
import sqlalchemy as sa

from strongroom.secrets.v1 import root_key_pb2 as pb
from strongroom.secrets.v1 import root_key_pb2_grpc
from tests.models_installation import noise
from tests.mortal import MortalSecrets, mortal_secrets
from tests.serving import ADMINISTRATOR
from tests.test_root_keys import write_root_key

pytestmark = pytest.mark.row("S4.6")


def move(running: MortalSecrets, name: str) -> pb.MoveRootKeyResponse:
    """One call, which does all of it."""
    with grpc.insecure_channel(running.installation.secrets_address) as channel:
        metadata = running.installation.tokens.metadata("secrets", ADMINISTRATOR)
        stub = root_key_pb2_grpc.RootKeyServiceStub(channel)
        return stub.MoveRootKey(pb.MoveRootKeyRequest(name=name), metadata=metadata, timeout=20)


def rows(running: MortalSecrets, query: str) -> list[tuple[object, ...]]:
    engine = sa.create_engine(f"sqlite:///{running.folder}/db/strongroom-secrets.db")
    with closing(engine.connect()) as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


@pytest.mark.slow
def test_killed_at_any_step_of_a_move(tmp_path: Path) -> None:
    content = noise(1, 50_000)
    write_root_key(tmp_path / "next.key")
    (tmp_path / "kms.yaml").write_text("root_keys:\n  next: {kind: file, path: next.key}\n")
    with mortal_secrets(tmp_path) as running:
        running.admin.push("kept", {"w": content})
        for step in count(1):
            name = ("next", "file")[step % 2]
            attempt = running.attempt(step, lambda name=name: move(running, name))
            # Each is wrapped by a generation that is there: another models service, which remembers no key, reads.
            with running.installation.models() as address, grpc.insecure_channel(address) as channel:
                caller = type(running.admin)(channel, running.installation.tokens, running.admin.principal)
                assert caller.read("kept", "w") == content, attempt.died_at
            while move(running, name).left:
                pass
            assert rows(running, "SELECT DISTINCT name FROM root_keys") == [(name,)], attempt.died_at
            assert rows(running, "SELECT count(DISTINCT root_generation) FROM kek_versions") == [(1,)]
            if attempt.died_at is None:
                assert step > 4, "the steps are not seen any more"
                break
        # Of everything that was needed on the way, what is current is enough.
        (tmp_path / ("root.key" if name == "next" else "next.key")).unlink()
        running.restart()
        with running.installation.models() as address, grpc.insecure_channel(address) as channel:
            caller = type(running.admin)(channel, running.installation.tokens, running.admin.principal)
            assert caller.read("kept", "w") == content
