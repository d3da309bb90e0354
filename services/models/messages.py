"""What several servicers answer with."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from services.models.manifests import ManifestFile
from services.models.notes import Notes
from services.models.versions import Version
from strongroom.models.v1 import models_pb2 as pb

_NOTHING_SAID = Notes()


def version_message(version: Version, files: Iterable[ManifestFile] = (), notes: Notes = _NOTHING_SAID) -> pb.Version:
    """A version and what is said about it, with its files unless it stands in a listing."""
    return pb.Version(
        manager_id=version.manager_id,
        model_name=version.model_name,
        version=version.name,
        size_bytes=version.size,
        files_count=version.files_count,
        created_at=timestamp(version.created_at),
        created_by=version.created_by,
        protected=version.protected,
        files=[
            pb.File(
                path=file.path,
                size_bytes=file.size,
                sha256=file.sha256.hex(),
                sha256_verified=version.sha256_verified,
            )
            for file in files
        ],
        aliases=notes.aliases,
        stage=notes.stage,
        tags=notes.tags,
        card=notes.card,
        metrics=notes.metrics,
        etag=notes.etag,
    )


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    """A JSON object as a message."""
    return json_format.ParseDict(dict(value), struct_pb2.Struct())


def plain(message: struct_pb2.Struct) -> dict[str, Any]:
    """A JSON object out of a message, with whole numbers as JSON writes them: 5, not 5.0."""
    decoded: dict[str, Any] = _whole(json_format.MessageToDict(message))
    return decoded


def plain_value(message: struct_pb2.Value) -> Any:
    """The same of any JSON value; None if it is not set."""
    return _whole(json_format.MessageToDict(message)) if message.WhichOneof("kind") else None


def bare_list(items: Iterable[Message]) -> struct_pb2.ListValue:
    """What REST answers with where it promises a list: each as the gateway prints it."""
    answer = struct_pb2.ListValue()
    for item in items:
        shown = json_format.MessageToDict(
            item, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        json_format.ParseDict(shown, answer.add_struct())
    return answer


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value
