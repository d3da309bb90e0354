"""What several servicers answer with."""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from services.models.manifests import ManifestFile
from services.models.versions import Version
from strongroom.models.v1 import models_pb2 as pb


def version_message(version: Version, files: Iterable[ManifestFile] = ()) -> pb.Version:
    """A version, with its files unless it stands in a listing."""
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
    )


def timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
