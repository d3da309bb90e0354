"""Which stores there are: the YAML file that STRONGROOM_STORES names (docs/stores.md).

    primary: disk
    replicas: [aws]
    stores:
      disk: {kind: local, path: /var/lib/strongroom/weights}
      aws:
        {kind: s3, bucket: models, region: eu-west-1, access_key: {environment: NAME}, secret_key: {file: PATH}}

A secret stands in a file or in the environment; the configuration says where.
"""

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from services.models.stores.document import translated
from services.shared import configuration
from services.shared.configuration import Endpoint, FilePath, Name, Remote, SecretReference, Strict

_MAX_STORES = 16

LOCAL = "local"


class LocalConfiguration(Strict):
    """A folder, of this store alone; a relative path begins at the folder of the file."""

    kind: Literal["local"]
    path: FilePath


class S3Configuration(Remote):
    """A bucket of Amazon S3, or of a server that is compatible with it and obeys `If-None-Match` on writes.

    Without keys the SDK finds them where AWS's tools look: environment, `profile`, role of the machine.
    """

    kind: Literal["s3"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    endpoint: Endpoint | None = None
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    session_token: SecretReference | None = None
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,64}$")] | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key come together")
        if self.session_token is not None and self.secret_key is None:
            raise ValueError("session_token needs access_key and secret_key")
        return self


class GcsConfiguration(Remote):
    """A bucket of Google Cloud Storage.

    `credentials` is a service account's JSON key; without it, the application default credentials count.
    """

    kind: Literal["gcs"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
    endpoint: Endpoint | None = None
    credentials: SecretReference | None = None
    # Signs in as nobody, as emulators want it.
    anonymous: bool = False


class AzureConfiguration(Remote):
    """A container of Azure Blob Storage.

    `endpoint` is `https://ACCOUNT.blob.core.windows.net`, `credential` an account key or a SAS token; without it,
    DefaultAzureCredential looks for one: environment, workload or managed identity, the `az` command.
    """

    kind: Literal["azure"]
    container: Annotated[str, Field(pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$")]
    endpoint: Endpoint
    credential: SecretReference | None = None


StoreConfiguration = Annotated[
    LocalConfiguration | S3Configuration | GcsConfiguration | AzureConfiguration, Field(discriminator="kind")
]


class CacheConfiguration(Strict):
    """A folder for pieces of packs that were read, of so many GB (10⁹ bytes); a relative path as for a local store."""

    path: FilePath
    max_size_gb: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0


class StoresConfiguration(Strict):
    """All stores by name: weights are written to `primary` first and copied to `replicas`, read in that order."""

    primary: Name
    replicas: tuple[Name, ...] = ()
    stores: Annotated[dict[Name, StoreConfiguration], Field(min_length=1, max_length=_MAX_STORES)]
    cache: CacheConfiguration | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.names)) < len(self.names):
            raise ValueError("a store is named twice among primary and replicas")
        if missing := set(self.names) - set(self.stores):
            raise ValueError(f"not among the stores: {', '.join(sorted(missing))}")
        if unused := set(self.stores) - set(self.names):
            raise ValueError(f"neither primary nor among the replicas: {', '.join(sorted(unused))}")
        places = [
            store.model_dump(include={"kind", "path", "endpoint", "bucket", "container", "prefix"}).items()
            for store in self.stores.values()
        ]
        if len({tuple(sorted((name, str(value)) for name, value in place)) for place in places}) < len(places):
            raise ValueError("two stores are at the same place: a replica must be elsewhere")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The primary, then the replicas."""
        return (self.primary, *self.replicas)

    @classmethod
    def only_local(cls, path: Path) -> "StoresConfiguration":
        """A single store on disk, called `local`."""
        return cls(primary=LOCAL, stores={LOCAL: LocalConfiguration(kind="local", path=path)})


def load(file: Path, local: Path = Path("weights")) -> StoresConfiguration:
    """The configuration in a file. Raises ConfigurationError, with what is wrong and none of the values.

    Args:
        local: where weights are on disk, for a file in the form of the Secret Management API, which does not say it.
    """
    found = configuration.load(file, StoresConfiguration, partial(translated, local=local, environment=os.environ))
    changes: dict[str, Any] = {"stores": {n: _placed(s, file.parent) for n, s in found.stores.items()}}
    if found.cache is not None:
        changes["cache"] = found.cache.model_copy(update={"path": file.parent / found.cache.path})
    return found.model_copy(update=changes)


def parse(text: str) -> StoresConfiguration:
    """The configuration, its paths as they are written. ConfigurationError, of one line."""
    return configuration.parse(text, StoresConfiguration)


def _placed(store: StoreConfiguration, folder: Path) -> StoreConfiguration:
    if isinstance(store, LocalConfiguration):
        return store.model_copy(update={"path": folder / store.path})
    return store
