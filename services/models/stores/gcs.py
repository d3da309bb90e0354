"""Objects in a bucket of Google Cloud Storage.

Parts are objects of their own below `.unfinished/`; composing them makes the object, at once and only if there is none
(`ifGenerationMatch=0`). Unlike sessions of resumable uploads they can be listed, so that nothing is left unseen.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import google.auth
from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage  # type: ignore[attr-defined]  # it is there only with its extra
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2 import service_account
from requests.exceptions import RequestException

from services.models.stores.bounded import BoundedAdapter, expecting
from services.models.stores.configuration import GcsConfiguration
from services.models.stores.parts import MARK, PAGE, USUAL, Conflict, PartWriter, Patience, entries, understood
from services.models.stores.store import ObjectNotFound, StoredObject, StoreFull, StoreUnavailable, folder, key_parts
from services.shared.configuration import ConfigurationError
from strongroom.chunking import Buffer

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_CONNECTIONS = 64
_UNFINISHED = ".unfinished/"  # no key begins with a dot
_PART = re.compile(r"[0-9a-f]{32}\.[0-9]{6,9}")  # what is named otherwise there is not ours
_MOST_COMPOSED = 32  # https://cloud.google.com/storage/docs/composite-objects
_TYPE = "application/octet-stream"


def opened(configuration: GcsConfiguration, patience: Patience = USUAL) -> "GcsStore":
    """Opens a store; asks nothing of it yet. Raises ConfigurationError."""
    credentials = _credentials(configuration)
    session = AuthorizedSession(credentials)
    for scheme in ("https://", "http://"):
        session.mount(scheme, BoundedAdapter(patience.silence, pool_maxsize=_CONNECTIONS))
    options = {"api_endpoint": configuration.endpoint} if configuration.endpoint else None
    # The project would own new buckets, and none are made.
    client = storage.Client(project="-", credentials=credentials, _http=session, client_options=options)
    return GcsStore(client, configuration.bucket, configuration.prefix, patience)


def _credentials(configuration: GcsConfiguration) -> Credentials:
    if configuration.anonymous:
        return AnonymousCredentials()
    try:
        if configuration.credentials is None:
            return google.auth.default(scopes=[_SCOPE])[0]
        account = json.loads(configuration.credentials.read())
        return service_account.Credentials.from_service_account_info(account, scopes=[_SCOPE])
    except DefaultCredentialsError:
        raise ConfigurationError("there are no application default credentials; name a service account's key") from None
    except (ValueError, TypeError, AttributeError, GoogleAuthError) as error:  # whose text may quote the key
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError("credentials are not a service account's JSON key") from None


class GcsStore:
    """Objects in a bucket, below a prefix."""

    def __init__(self, client: storage.Client, bucket: str, prefix: str, patience: Patience) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._root = folder(prefix)
        self._patience = {
            "timeout": (patience.connect, patience.silence),
            "retry": _retry(patience),
        }

    def create(self, key: str) -> PartWriter:
        """Begins an object, unseen until it is committed. A context manager: leaving it uncommitted discards."""
        key_parts(key)
        return PartWriter(key, lambda mark: _Upload(self, key, mark))

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
        start = offset if offset or length is not None else None
        end = None if length is None else offset + length - 1
        blob = self._blob(key)
        with _translated(), expecting(length):
            try:
                data = blob.download_as_bytes(start=start, end=end, raw_download=True, **self._patience)
            except exceptions.RequestRangeNotSatisfiable:
                return b""
            except exceptions.NotFound:
                raise self._absent(key) from None
        if length is not None and len(data) > length:
            raise StoreUnavailable("The store answers with another range than it was asked for.")
        return bytes(data)

    def size(self, key: str) -> int:
        """Bytes of an object. ObjectNotFound."""
        key_parts(key)
        with _translated():
            blob = self._found(key)
            if blob is None:
                raise self._absent(key)
            return int(blob.size)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects in a folder such as `packs/` and below, in no order; all by default."""
        if prefix and not prefix.endswith("/"):
            raise ValueError("a prefix names a folder and ends in /")
        for found in self._listed(prefix):
            with suppress(ValueError):  # unfinished, or not ours
                key_parts(found.key)
                yield found

    def delete(self, key: str) -> bool:
        """Removes an object, durably; False if there is none. A bucket with soft delete keeps it for a while."""
        blob = self._blob(key)
        with _translated():
            try:
                blob.delete(**self._patience)
            except exceptions.NotFound:
                with suppress(ObjectNotFound):
                    raise self._absent(key) from None
                return False
        return True

    def unfinished(self) -> Iterator[StoredObject]:
        """Parts of objects that were not committed; their age tells which of them a crash left."""
        for found in self._listed(_UNFINISHED):
            name = found.key.removeprefix(_UNFINISHED)
            if _PART.fullmatch(name):
                yield StoredObject(name, found.size, found.modified)

    def discard_unfinished(self, key: str) -> bool:
        """Removes one of `unfinished`; False if it is gone already."""
        (name,) = key_parts(key)
        with _translated():
            try:
                self._part(name).delete(**self._patience)
            except exceptions.NotFound:
                return False
        return True

    def _listed(self, prefix: str) -> Iterator[StoredObject]:
        with _translated():
            found = self._client.list_blobs(self._bucket, prefix=self._root + prefix, page_size=PAGE, **self._patience)
            for blob in entries(found.pages, lambda blob: blob.name):
                with understood():
                    listed = StoredObject(blob.name.removeprefix(self._root), int(blob.size), blob.updated.timestamp())
                yield listed

    def _blob(self, key: str) -> storage.Blob:
        key_parts(key)
        return self._bucket.blob(self._root + key)

    def _part(self, name: str) -> storage.Blob:
        return self._bucket.blob(self._root + _UNFINISHED + name)

    def _found(self, key: str) -> storage.Blob | None:
        return self._bucket.get_blob(self._blob(key).name, **self._patience)

    def _absent(self, key: str) -> ObjectNotFound:
        """The error for a missing object; NotFound itself if the bucket is missing, which answers alike."""
        next(iter(self._client.list_blobs(self._bucket, max_results=1, **self._patience)), None)
        return ObjectNotFound("The store has no such object.", key=key)

    def _upload(self, blob: storage.Blob, data: bytes, *, once: bool) -> None:
        condition = 0 if once else None
        blob.upload_from_string(data, content_type=_TYPE, if_generation_match=condition, **self._patience)

    def _compose(self, target: storage.Blob, sources: Sequence[storage.Blob], *, once: bool) -> None:
        target.content_type = _TYPE
        target.compose(sources, if_generation_match=0 if once else None, **self._patience)


class _Upload:
    """Parts `<mark>.<number>`, which are composed in groups until one group is left."""

    def __init__(self, store: GcsStore, key: str, mark: str) -> None:
        self._store = store
        self._key = key
        self._mark = mark
        self._made: list[storage.Blob] = []
        self._target = store._blob(key)
        self._target.metadata = {MARK: mark}

    def send(self, part: bytes) -> None:
        with _translated():
            self._store._upload(self._next(), part, once=False)

    def finish(self) -> None:
        with _translated():
            parts = list(self._made)
            while len(parts) > _MOST_COMPOSED:
                parts = [self._composed(parts[at : at + _MOST_COMPOSED]) for at in range(0, len(parts), _MOST_COMPOSED)]
            # The condition decides; asked before, a server that overlooks it does less harm.
            if self._store._found(self._key) is not None:
                raise Conflict
            try:
                self._store._compose(self._target, parts, once=True)
            except exceptions.NotFound:  # the parts were discarded, perhaps after a first attempt succeeded
                raise Conflict from None

    def put(self, data: bytes) -> None:
        with _translated():
            self._store._upload(self._target, data, once=True)

    def abandon(self) -> None:
        # The store may be down; what is left is among the unfinished, and is collected by its age.
        for part in self._made:
            try:
                self._store.discard_unfinished(part.name.rpartition("/")[2])
            except StoreUnavailable:
                return

    def winner(self) -> str | None:
        with _translated():
            blob = self._store._found(self._key)
            return None if blob is None else (blob.metadata or {}).get(MARK, "")

    def _composed(self, sources: list[storage.Blob]) -> storage.Blob:
        target = self._next()
        self._store._compose(target, sources, once=False)
        return target

    def _next(self) -> storage.Blob:
        part = self._store._part(f"{self._mark}.{len(self._made):06d}")
        self._made.append(part)
        return part


def _retry(patience: Patience) -> Retry:
    # The SDK counts seconds, not attempts: as many as a store may be silent.
    return DEFAULT_RETRY.with_delay(initial=0.25, maximum=4.0, multiplier=2.0).with_timeout(patience.silence)


@contextmanager
def _translated() -> Iterator[None]:
    """The SDK's errors as ours; without their text, which may quote what was sent."""
    try:
        yield
    except exceptions.PreconditionFailed:
        raise Conflict from None
    except exceptions.GoogleAPICallError as error:
        code = str(error.code)
        if code == "507":
            raise StoreFull("There is no room left in the store.", code=code) from None
        message = f"Google Cloud Storage refuses ({code}): see whether it is up, and bucket and credentials are right."
        raise StoreUnavailable(message, code=code) from None
    except (
        exceptions.GoogleAPIError,
        GoogleAuthError,
        RequestException,
        InvalidResponse,
        DataCorruption,
        OSError,
        *(KeyError, TypeError, ValueError, AttributeError),  # a field missing or senseless
    ) as error:
        name = type(error).__name__
        message = f"Google Cloud Storage does not answer as it should ({name}). Try again."
        raise StoreUnavailable(message, code=name) from None
