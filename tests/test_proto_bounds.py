"""The contract: everything a request can carry has a bound, or it is said here what bounds it instead.

What has none costs memory and time by the size of the message alone, and whoever sends it chooses those.
"""

import re
from collections.abc import Iterator
from itertools import count

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.shared.errors import InvalidArgument
from services.shared.validation import check
from strongroom.buf.validate import validate_pb2
from strongroom.models.v1 import weights_pb2
from tests.test_protos import METHODS

# Fields without a rule in their proto, and what bounds them.
BOUNDED_ELSEWHERE = {
    "strongroom.models.v1.ChunkFrame.lengths": "bulk_frames: MAX_CHUNKS, before they are copied",
    "strongroom.models.v1.ChunkFrame.data": "bulk_frames: MAX_FRAME",
    "google.api.HttpBody.content_type": "a piece of a body: the limit of a message, and read from the first alone",
    "google.api.HttpBody.data": "a piece of a body: the limit of a message; forms and files pass in pieces",
    "google.api.HttpBody.extensions": "read by nobody",
    "strongroom.models.v1.CreateConfigRequest.data": "configs: 64 KiB as JSON",
    "strongroom.models.v1.UpdateConfigRequest.data": "configs: 64 KiB as JSON",
    "strongroom.models.v1.CreateMlArtifactRequest.data": "ml_artifact_servicer: 16 MiB as a message",
    "strongroom.models.v1.Table.data": "its own limit of rows; data_tables: 16 MiB as a message",
    "strongroom.models.v1.QueryArtifactsRequest.queries": "artifact_servicer: at most 100 queries",
    "strongroom.secrets.v1.CreateSecretRequest.data": "vault: so many fields, 64 KiB together",
    "strongroom.secrets.v1.UpdateSecretRequest.data": "vault: so many fields, 64 KiB together",
    "strongroom.secrets.v1.StageSecretVersionRequest.data": "vault: so many fields, 64 KiB together",
    "strongroom.secrets.v1.SetRotationRequest.options": "the limit of a message; policies: so many characters as JSON",
}


def _bounded_text(rules: validate_pb2.StringRules) -> bool:
    if rules.HasField("max_len") or rules.HasField("max_bytes") or rules.HasField("len") or rules.HasField("len_bytes"):
        return True
    if getattr(rules, "in") or rules.HasField("const"):
        return True
    # RE2's syntax, as far as the contract uses it, is Python's.
    width = re._parser.parse(rules.pattern).getwidth()[1]  # type: ignore[attr-defined]
    return bool(rules.pattern) and width < 100_000


def _bounded(field: FieldDescriptor, rules: validate_pb2.FieldRules) -> bool:
    """Whether one value of the field is bounded by its own rules; messages are looked into by themselves."""
    if field.type == field.TYPE_STRING:
        return _bounded_text(rules.string)
    if field.type == field.TYPE_BYTES:
        return rules.bytes.HasField("max_len") or rules.bytes.HasField("len")
    return True


def _unbounded(field: FieldDescriptor) -> Iterator[str]:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
    if entry is not None:
        if not rules.map.HasField("max_pairs"):
            yield "how many pairs"
        if not _bounded(entry.fields_by_name["key"], rules.map.keys):
            yield "how long a key"
        if not _bounded(entry.fields_by_name["value"], rules.map.values):
            yield "how long a value"
    elif field.is_repeated:
        if not rules.repeated.HasField("max_items"):
            yield "how many items"
        if not _bounded(field, rules.repeated.items):
            yield "how long an item"
    elif not _bounded(field, rules):
        yield "how long"


def _messages(root: Descriptor) -> list[Descriptor]:
    """The message with all that it can hold."""
    found = [root]
    for position in count():
        if position == len(found):
            return found
        for field in found[position].fields:
            kind = field.message_type
            if kind is not None and kind not in found and field.full_name not in BOUNDED_ELSEWHERE:
                found.append(kind)
    raise AssertionError


def test_everything_in_a_request_has_a_bound() -> None:
    missing = {
        f"{field.full_name}: {what}"
        for method in METHODS
        for message in _messages(method.input_type)
        if not message.GetOptions().map_entry
        for field in message.fields
        if field.full_name not in BOUNDED_ELSEWHERE
        for what in _unbounded(field)
    }
    assert sorted(missing) == []


def test_what_is_bounded_elsewhere_is_there() -> None:
    named = {field.full_name for m in METHODS for message in _messages(m.input_type) for field in message.fields}
    assert set(BOUNDED_ELSEWHERE) <= named


@pytest.mark.parametrize("field", ["chunk_lengths", "chunk_digests"])
def test_a_file_of_too_many_chunks_is_refused(field: str) -> None:
    """A length is a byte on the wire and more in memory: 64 MiB of them are refused before they are copied."""
    file = weights_pb2.UploadedFile(path="a", sha256=bytes(32))
    if field == "chunk_lengths":
        file.chunk_lengths.extend([1] * 2_000_001)
    else:
        file.chunk_digests = bytes(64_000_032)
    request = weights_pb2.CommitUploadRequest(manager_id="m", model_name="n", upload_id="u", files=[file])
    with pytest.raises(InvalidArgument, match=field):
        check(request)
