"""Objects in a container of Azure Blob Storage.

Larger objects are staged as blocks, which make a blob only when their list is committed, once (`If-None-Match: *`).
Azure has no way to remove staged blocks but by committing: they are committed as an empty blob that says so, which
nobody sees, and that is deleted.
"""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, ContainerClient, LinearRetry
from requests import Session

from services.models.stores.bounded import BoundedAdapter, expecting
from services.models.stores.configuration import AzureConfiguration
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

_DISCARDED = "strongroomdiscarded"
_MOST_AT_ONCE = 64 * 1024 * 1024  # a pack in one request


def opened(configuration: AzureConfiguration, patience: Patience = USUAL) -> "AzureStore":
    """Opens a store; asks nothing of it yet. Raises ConfigurationError."""
    session = Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedAdapter(patience.silence))
    try:
        container = ContainerClient(
            configuration.endpoint,
            configuration.container,
            credential=_credential(configuration),
            retry_policy=LinearRetry(backoff=1, random_jitter_range=1, retry_total=patience.attempts - 1),
            connection_timeout=patience.connect,
            read_timeout=patience.silence,
            session=session,
            max_single_put_size=_MOST_AT_ONCE,
            max_single_get_size=_MOST_AT_ONCE,
        )
    except ValueError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError("endpoint or credential is not one of Azure Blob Storage") from None
    return AzureStore(container, configuration.prefix)


def _credential(configuration: AzureConfiguration) -> Any:
    if configuration.credential is None:
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential()
    secret = configuration.credential.read()
    if "sig=" in secret:
        return AzureSasCredential(secret.removeprefix("?"))
    url = urlsplit(configuration.endpoint)
    # An account has a host of its own; servers for tests have them as folders.
    account = url.path.strip("/") or (url.hostname or "").partition(".")[0]
    try:
        base64.b64decode(secret, validate=True)
    except ValueError:
        raise ConfigurationError("credential is neither an account key nor a SAS token") from None
    return AzureNamedKeyCredential(account, secret)


class AzureStore:
    """Objects in a container, below a prefix."""

    def __init__(self, container: ContainerClient, prefix: str) -> None:
        self._container = container
        self._root = folder(prefix)

    def create(self, key: str) -> PartWriter:
        """Begins an object, unseen until it is committed. A context manager: leaving it uncommitted discards."""
        blob = self._blob(key)
        return PartWriter(key, lambda mark: _Upload(blob, mark))

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
        blob = self._blob(key)
        with _translated(key), expecting(length):
            try:
                span: dict[str, Any] = {"offset": offset, "length": length} if offset or length is not None else {}
                stream = blob.download_blob(raw_response_hook=_refuse_whole, **span)
                _refuse_discarded(stream.properties, key)
                data = stream.readall()
            except HttpResponseError as error:
                if error.status_code == 416:  # begins beyond the end
                    return b""
                raise
        return bytes(data)

    def size(self, key: str) -> int:
        """Bytes of an object. ObjectNotFound."""
        blob = self._blob(key)
        with _translated(key):
            properties = blob.get_blob_properties()
            _refuse_discarded(properties, key)
            return int(properties.size)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in a folder such as `packs/` and below, in no order; all by default."""
        if prefix and not prefix.endswith("/"):
            raise ValueError("a prefix names a folder and ends in /")
        with _translated(prefix):
            for blob in self._listed(prefix, "metadata"):
                key = blob.name.removeprefix(self._root)
                with suppress(ValueError, ObjectNotFound):  # not ours, or discarded
                    key_parts(key)
                    _refuse_discarded(blob, key)
                    with understood():
                        listed = StoredObject(key, int(blob.size), blob.last_modified.timestamp())
                    yield listed

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there is none. An account with soft delete keeps it for a while."""
        try:
            self.size(key)  # else some servers would delete what is staged, too
            with _translated(key):
                self._blob(key).delete_blob(delete_snapshots="include")
        except ObjectNotFound:
            return False
        return True

    def unfinished(self) -> Iterator[StoredObject]:
        """Blobs of which blocks are staged and none are committed, and what is left of discarding such a blob."""
        with _translated(""):
            for name in FOLDERS:
                for blob in self._listed(name, "uncommittedblobs", "metadata"):
                    key = blob.name.removeprefix(self._root)
                    with suppress(ValueError):  # not ours
                        key_parts(key)
                        if (size := self._staged(blob)) is not None:
                            with understood():
                                listed = StoredObject(key, size, blob.last_modified.timestamp())
                            yield listed

    def discard_unfinished(self, key: str) -> bool:
        """Removes one of `unfinished`; False if it is gone already."""
        blob = self._blob(key)
        with _translated(key):
            try:
                _, staged = blob.get_block_list("all")
            except ResourceNotFoundError as error:
                if _code(error) == "ContainerNotFound":
                    raise
                return False
            return bool(staged) and _discard(blob)

    def _listed(self, prefix: str, *include: str) -> Iterator[BlobProperties]:
        found = self._container.list_blobs(self._root + prefix, include=list(include), results_per_page=PAGE)
        return entries(found.by_page(), lambda blob: blob.name)

    def _staged(self, blob: BlobProperties) -> int | None:
        """Bytes of a blob's staged blocks; None if the blob is an object or gone."""
        if _discarded(blob.metadata):
            return 0
        if blob.size:
            return None
        with suppress(ResourceNotFoundError):
            committed, staged = self._container.get_blob_client(blob.name).get_block_list("all")
            return None if committed or not staged else sum(block.size for block in staged)
        return None

    def _blob(self, key: str) -> BlobClient:
        key_parts(key)
        return self._container.get_blob_client(self._root + key)


class _Upload:
    """Blocks of one writer: others that write the same blob have other ids."""

    def __init__(self, blob: BlobClient, mark: str) -> None:
        self._blob = blob
        self._mark = mark
        self._metadata = {MARK: mark}
        self._blocks: list[BlobBlock] = []

    def send(self, part: bytes) -> None:
        block = f"{self._mark}{len(self._blocks):06d}"
        self._blocks.append(BlobBlock(block))
        with _translated(self._blob.blob_name):
            self._blob.stage_block(block, part, len(part))

    def finish(self) -> None:
        with _translated(self._blob.blob_name):
            self._blob.commit_block_list(
                self._blocks, metadata=self._metadata, match_condition=MatchConditions.IfMissing
            )

    def put(self, data: bytes) -> None:
        with _translated(self._blob.blob_name):
            self._blob.upload_blob(data, length=len(data), metadata=self._metadata, overwrite=False)

    def abandon(self) -> None:
        # The store may be down; what is left is among the unfinished, and is collected by its age.
        with suppress(AzureError):
            _discard(self._blob)

    def winner(self) -> str | None:
        with _translated(self._blob.blob_name):
            try:
                return (self._blob.get_blob_properties().metadata or {}).get(MARK, "")
            except ResourceNotFoundError:
                return None


def _discard(blob: BlobClient) -> bool:
    """Frees staged blocks, unless they became an object; says whether it did."""
    try:
        blob.commit_block_list([], metadata={_DISCARDED: "1"}, match_condition=MatchConditions.IfMissing)
    except (ResourceExistsError, ResourceModifiedError):
        # An object, or what a crash left of this very step.
        if not _discarded(blob.get_blob_properties().metadata):
            return False
    blob.delete_blob()
    return True


def _discarded(metadata: Mapping[str, str] | None) -> bool:
    return _DISCARDED in (metadata or {})


def _refuse_discarded(blob: BlobProperties, key: str) -> None:
    if _discarded(blob.metadata):
        raise ObjectNotFound("The store has no such object.", key=key)


def _refuse_whole(response: Any) -> None:
    """The SDK asks for a range, unless the object is empty, and would take the beginning of a whole object for it."""
    answer = response.http_response
    if answer.status_code == 200 and answer.headers.get("Content-Length") != "0":
        raise StoreUnavailable("The store answers with another range than it was asked for.")


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """The SDK's errors as ours; without their text, which may have a URL with a SAS token."""
    try:
        yield
    except HttpResponseError as error:
        code = _code(error)
        if isinstance(error, ResourceNotFoundError) and code != "ContainerNotFound":
            raise ObjectNotFound("The store has no such object.", key=key) from None
        if isinstance(error, ResourceExistsError | ResourceModifiedError) or code == "InvalidBlockList":
            raise Conflict from None
        if error.status_code == 507:
            raise StoreFull("There is no room left in the store.", code=code) from None
        message = f"The Azure store refuses ({code}): see whether it is up, and container and credential are right."
        raise StoreUnavailable(message, code=code) from None
    except (AzureError, KeyError, TypeError, ValueError, AttributeError) as error:  # a field missing or senseless
        name = type(error).__name__
        raise StoreUnavailable(
            f"The Azure store does not answer as it should ({name}). Try again.", code=name
        ) from None


def _code(error: HttpResponseError) -> str:
    # As a string: the SDK gives its own enumeration for the codes that it knows.
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or error.status_code or type(error).__name__)[:64]
