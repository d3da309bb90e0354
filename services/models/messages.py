"""What several servicers answer with."""

from collections.abc import Iterable
from datetime import datetime

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
