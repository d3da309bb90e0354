"""What a caller hears of a request that breaks a rule of its proto."""

import re
from pathlib import Path

import pytest
from google.protobuf.message import Message

from services.shared import validation
from services.shared.errors import InvalidArgument
from strongroom.auth.v1 import api_keys_pb2, usage_pb2
from strongroom.models.v1 import models_pb2

PROTOS = Path(__file__).resolve().parent.parent / "protos"


def test_every_pattern_of_the_contract_is_told_in_words() -> None:
    found = {
        pattern.replace("\\\\", "\\")
        for proto in PROTOS.rglob("*.proto")
        for pattern in re.findall(r'pattern(?::| =) "([^"]*)"', proto.read_text())
    }
    assert found == set(validation.IN_WORDS)


@pytest.mark.parametrize(
    ("message", "field", "words"),
    [
        (api_keys_pb2.GetApiKeyRequest(id="a b"), "id", "must be an id: 1 to 64 letters, digits and dashes"),
        (usage_pb2.ListUsageRequest(from_day="today"), "from_day", "must be a day like 2026-11-21"),
        (
            api_keys_pb2.CreateApiKeyRequest(name="x", permissions=["models.read", "models"]),
            "permissions",
            "must be a permission like models.read",
        ),
        (models_pb2.ListModelsRequest(manager_id="a/b"), "manager_id", "letters, digits, dots, dashes and underscores"),
        (
            api_keys_pb2.CreateApiKeyRequest(name="x", expires_in_days=0),
            "expires_in_days",
            "greater than or equal to 1",
        ),
    ],
)
def test_names_the_field_and_what_it_must_be(message: Message, field: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        validation.check(message)
    assert caught.value.message.startswith(f"{field} ")
    assert words in caught.value.message
    assert "^" not in caught.value.message
    assert caught.value.metadata == {"field": field}
