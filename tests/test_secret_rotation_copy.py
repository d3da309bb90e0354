"""A copy of an installation leaves alone what the original uses."""

import threading
from pathlib import Path

import grpc
import pytest

from strongroom.secrets.v1 import rotations_pb2, rotations_pb2_grpc
from tests.audit_trails import eventually
from tests.secrets_installation import Installation

pytestmark = pytest.mark.row("S4.3")


def _workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("rotation-")}


def test_nothing_rotates_while_rotation_is_off_and_what_is_due_does_once_it_is_on(tmp_path: Path) -> None:
    installation, before = Installation(tmp_path), _workers()
    original, copy = installation.settings, installation.settings.model_copy(update={"rotation": "off"})
    metadata = tuple(installation.tokens.metadata("secrets"))
    installation.settings = copy
    with installation.serving() as address, grpc.insecure_channel(address) as channel:
        client, rotations = installation.client(address), rotations_pb2_grpc.SecretRotationServiceStub(channel)
        client("CreateSecret", name="db", data={"password": "of the original"})
        rotations.SetRotation(rotations_pb2.SetRotationRequest(name="db", rotator="random"), metadata=metadata)
        asked = rotations.RotateSecret(rotations_pb2.RotateSecretRequest(name="db"), metadata=metadata)
        assert (asked.state, _workers() - before) == ("requested", set())
        assert client.value("db") == {"password": "of the original"}
    installation.settings = original
    with installation.serving() as address:
        client = installation.client(address)
        eventually(lambda: client.value("db") != {"password": "of the original"})
