"""Objects in a bucket of Amazon S3 or of a server that is compatible with it.

`If-None-Match: *` on the request that makes an object visible lets one of several writers win. Larger objects are
uploaded in parts, which S3 keeps apart until the upload is completed; `unfinished` lists such uploads.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError

from services.models.stores.bounded import bounded_pools, expecting
from services.models.stores.configuration import S3Configuration
from services.models.stores.parts import MARK, PAGE, USUAL, Conflict, PartWriter, Patience, entries, understood
from services.models.stores.store import (
    FOLDERS,
    ObjectNotFound,
    StoredObject,
    StoreFull,
    StoreUnavailable,
    folder,
    key_parts,
)
from services.shared.configuration import ConfigurationError
from strongroom.chunking import Buffer

_CONNECTIONS = 64
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"}
# 409: two conditional writes at the same time. NoSuchUpload: completed, or discarded.
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchUpload", "412"}
_BETWEEN = ":"  # no part of a key: key and id of an unfinished upload


def opened(configuration: S3Configuration, patience: Patience = USUAL) -> "S3Store":
    """Opens a store; asks nothing of it yet. Raises ConfigurationError."""

    def read(name: str) -> str | None:
        reference = getattr(configuration, name)
        return None if reference is None else str(reference.read())

    try:
        session = boto3.Session(
            aws_access_key_id=read("access_key"),
            aws_secret_access_key=read("secret_key"),
            aws_session_token=read("session_token"),
            profile_name=configuration.profile,
        )
        client = session.client(
            "s3",
            region_name=configuration.region,
            endpoint_url=configuration.endpoint,
            config=Config(
                connect_timeout=patience.connect,
                read_timeout=patience.silence,
                retries={"mode": "standard", "total_max_attempts": patience.attempts},
                max_pool_connections=_CONNECTIONS,
                # Of a compatible server it is known that paths work, and of no other that names of hosts do.
                s3={"addressing_style": "path" if configuration.endpoint else "auto"},
            ),
        )
        # The SDK has no setting for it; tests/test_store_hostile.py tells if this is no longer the place.
        pools = client._endpoint.http_session._pool_classes_by_scheme
        pools.update(bounded_pools(pools, patience.silence))
    except (BotoCoreError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"S3 can't be used ({type(error).__name__})") from None
    return S3Store(client, configuration.bucket, configuration.prefix, patience)


class S3Store:
    """Objects in a bucket, below a prefix.

    Args:
        client: of boto3, for S3; any number of threads may use it.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, patience: Patience) -> None:
        self._client = client
        self._bucket = bucket
        self._root = folder(prefix)
        self._attempts = patience.attempts

    def create(self, key: str) -> PartWriter:
        """Begins an object, unseen until it is committed. A context manager: leaving it uncommitted discards."""
        place = self._place(key)
        return PartWriter(key, lambda mark: _Upload(self._client, place, mark))

    def put(self, key: str, data: Buffer) -> None:
        """Stores an object at once. ObjectExists if there is one already."""
        with self.create(key) as writer:
            writer.append(data)
            writer.commit()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Reads a range of an object, all of it by default; shorter only where the object ends. ObjectNotFound."""
        if length == 0:
            self.size(key)
            return b""
        # A whole object is asked for without a range: then the SDK compares its checksum.
        end = "" if length is None else offset + length - 1
        span = {"Range": f"bytes={offset}-{end}"} if offset or length is not None else {}
        request = self._place(key) | span
        with _translated(key), expecting(length):
            for left in reversed(range(self._attempts)):
                try:
                    return self._read(request, offset, length)
                except (HTTPClientError, IncompleteReadError):  # cut in its middle, where the SDK does not repeat
                    if not left:
                        raise
        raise AssertionError("at least one attempt is made")

    def size(self, key: str) -> int:
        """Bytes of an object. ObjectNotFound."""
        place = self._place(key)
        with _translated(key):
            try:
                return int(self._client.head_object(**place)["ContentLength"])
            except ClientError as error:
                if _status(error) == 404:  # without a body, so of the object or of the bucket
                    self._client.head_bucket(Bucket=self._bucket)
                    raise ObjectNotFound("The store has no such object.", key=key) from None
                raise

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in a folder such as `packs/` and below, in no order; all by default."""
        if prefix and not prefix.endswith("/"):
            raise ValueError("a prefix names a folder and ends in /")
        with _translated(prefix):
            for found in self._pages("list_objects_v2", "Contents", prefix):
                key = found["Key"].removeprefix(self._root)
                with suppress(ValueError):  # not ours
                    key_parts(key)
                    with understood():
                        listed = StoredObject(key, int(found["Size"]), found["LastModified"].timestamp())
                    yield listed

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there is none. In a bucket with versions, its last one is hidden."""
        try:
            self.size(key)
        except ObjectNotFound:
            return False
        with _translated(key):
            self._client.delete_object(**self._place(key))
        return True

    def unfinished(self) -> Iterator[StoredObject]:
        """Uploads in parts that were not completed; their age tells which of them a crash left."""
        with _translated(""):
            for name in FOLDERS:
                for found in self._pages("list_multipart_uploads", "Uploads", name):
                    key, upload_id = found["Key"].removeprefix(self._root), found["UploadId"]
                    try:
                        place = self._place(key)
                    except ValueError:  # not ours
                        continue
                    size = self._sent(place | {"UploadId": upload_id})
                    if size is not None and _possible(upload_id):
                        with understood():
                            listed = StoredObject(key + _BETWEEN + upload_id, size, found["Initiated"].timestamp())
                        yield listed

    def discard_unfinished(self, key: str) -> bool:
        """Removes one of `unfinished`; False if it is gone already."""
        key, between, upload_id = key.partition(_BETWEEN)
        place = self._place(key)
        if not between or not _possible(upload_id):
            raise ValueError("not an unfinished upload")
        with _translated(key):
            try:
                # Some servers let a second abort pass.
                self._client.list_parts(**place, UploadId=upload_id, MaxParts=1)
                self._client.abort_multipart_upload(**place, UploadId=upload_id)
            except ClientError as error:
                if _code(error) == "NoSuchUpload":
                    return False
                raise
        return True

    def _sent(self, upload: dict[str, Any]) -> int | None:
        """Bytes of an unfinished upload's parts; None if it was completed meanwhile."""
        try:
            pages = self._client.get_paginator("list_parts").paginate(**upload)
            parts = entries((page.get("Parts", ()) for page in pages), lambda part: part["PartNumber"])
            return sum(int(part["Size"]) for part in parts)
        except ClientError as error:
            if _code(error) == "NoSuchUpload":
                return None
            raise

    def _place(self, key: str) -> dict[str, Any]:
        key_parts(key)
        return {"Bucket": self._bucket, "Key": self._root + key}

    def _read(self, request: dict[str, Any], offset: int, length: int | None) -> bytes:
        try:
            answer = self._client.get_object(**request)
        except ClientError as error:
            if _status(error) == 416:  # begins beyond the end
                return b""
            raise
        with closing(answer["Body"]) as body:  # entered by itself, it would be the stream that nothing checks
            wrong_start = "Range" in request and not answer.get("ContentRange", "").startswith(f"bytes {offset}-")
            if wrong_start or (length is not None and answer.get("ContentLength", length + 1) > length):
                raise StoreUnavailable("The store answers with another range than it was asked for.")
            return bytes(body.read())

    def _pages(self, operation: str, field: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._client.get_paginator(operation).paginate(
            Bucket=self._bucket, Prefix=self._root + prefix, PaginationConfig={"PageSize": PAGE}
        )
        name = "UploadId" if field == "Uploads" else "Key"
        yield from entries((page.get(field, ()) for page in pages), lambda found: found[name])


def _possible(upload_id: str) -> bool:
    return upload_id.isascii() and upload_id.isprintable() and 0 < len(upload_id) <= 1024


class _Upload:
    """An upload in parts, begun with the first."""

    def __init__(self, client: Any, place: dict[str, Any], mark: str) -> None:
        self._client = client
        self._place = place
        self._metadata = {MARK: mark}
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def send(self, part: bytes) -> None:
        with _translated(self._place["Key"]):
            if self._id is None:
                begun = self._client.create_multipart_upload(**self._place, Metadata=self._metadata)
                self._id = begun["UploadId"]
            number = len(self._parts) + 1
            taken = self._client.upload_part(**self._place, UploadId=self._id, PartNumber=number, Body=part)
            checksums = {name: value for name, value in taken.items() if name.startswith("Checksum")}
            self._parts.append({"PartNumber": number, "ETag": taken["ETag"], **checksums})

    def finish(self) -> None:
        with _translated(self._place["Key"]):
            parts = {"Parts": self._parts}
            self._client.complete_multipart_upload(
                **self._place, UploadId=self._id, MultipartUpload=parts, IfNoneMatch="*"
            )

    def put(self, data: bytes) -> None:
        with _translated(self._place["Key"]):
            self._client.put_object(**self._place, Body=data, Metadata=self._metadata, IfNoneMatch="*")

    def abandon(self) -> None:
        # The store may be down; what is left is among the unfinished, and is collected by its age.
        with suppress(BotoCoreError, ClientError):
            if self._id is not None:
                self._client.abort_multipart_upload(**self._place, UploadId=self._id)

    def winner(self) -> str | None:
        with _translated(self._place["Key"]):
            try:
                return str(self._client.head_object(**self._place)["Metadata"].get(MARK, ""))
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """The SDK's errors as ours; without their text, which may have a signed URL."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code == "NoSuchKey":
            raise ObjectNotFound("The store has no such object.", key=key) from None
        if code in _CONFLICT:
            raise Conflict from None
        if code in _FULL or _status(error) == 507:
            raise StoreFull("There is no room left in the store.", code=code) from None
        message = f"The S3 store refuses ({code}): see whether it is up, and whether bucket and credentials are right."
        raise StoreUnavailable(message, code=code) from None
    except (BotoCoreError, KeyError, TypeError, ValueError, AttributeError) as error:  # a field missing or senseless
        name = type(error).__name__
        raise StoreUnavailable(f"The S3 store does not answer as it should ({name}). Try again.", code=name) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))[:64]


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
