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
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

_MAX_BYTES = 64 * 1024
_MAX_STORES = 16
_MAX_DEPTH = 8
_MOST_ERRORS = 5
# Names that an error repeats: anything else could be a secret in the wrong place.
_SHOWN = re.compile(r"[A-Za-z_]{1,24}|[a-z0-9][a-z0-9-]{0,31}")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]{1,255}(/[A-Za-z0-9._/-]{0,255})?")

LOCAL = "local"


def _endpoint(url: str) -> str:
    if not _ENDPOINT.fullmatch(url):
        raise ValueError("write https://HOST[:PORT], without user, query or fragment")
    return url.rstrip("/")


def _possible_path(path: Path) -> Path:
    if "\0" in str(path) or len(str(path)) > 4000:
        raise ValueError("no file can have this path")
    return path


FilePath = Annotated[Path, AfterValidator(_possible_path)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
# Folders of keys, and no slash at either end.
Prefix = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,7})?$")]


class ConfigurationError(ValueError):
    """The configuration of the stores can't be used. The message says where and why, and has no secret."""


class _Strict(BaseModel):
    # A value in an error, or a misspelt field ignored, could be a secret in the wrong place.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class SecretReference(_Strict):
    """Where a secret is: in a file or in a variable of the environment."""

    file: FilePath | None = None
    environment: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.environment is None):
            raise ValueError("name a file or a variable of the environment: {file: PATH} or {environment: NAME}")
        return self

    def read(self) -> str:
        """The secret, without white space around it. Raises ConfigurationError."""
        if self.environment is not None:
            where, text = f"The variable {self.environment}", os.environ.get(self.environment, "")
        else:
            assert self.file is not None
            where, text = str(self.file), _private_text(self.file)
        if not text.strip():
            raise ConfigurationError(f"{where} is empty; it shall hold a credential of a store.")
        return text.strip()


class _Remote(_Strict):
    """What stores in a cloud have in common."""

    # All objects are below it, so that several installations may share a bucket.
    prefix: Prefix = ""
    # Plain HTTP shows credentials and names to the network: only where it is said to be wanted, or on this machine.
    allow_http: bool = False

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        url = urlsplit(getattr(self, "endpoint", None) or "")
        if url.scheme == "http" and url.hostname not in _LOOPBACK and not self.allow_http:
            raise ValueError("the endpoint is plain HTTP; use https:// or say allow_http: true")
        return self


class LocalConfiguration(_Strict):
    """A folder, of this store alone; a relative path begins at the folder of the file."""

    kind: Literal["local"]
    path: FilePath


class S3Configuration(_Remote):
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


class GcsConfiguration(_Remote):
    """A bucket of Google Cloud Storage.

    `credentials` is a service account's JSON key; without it, the application default credentials count.
    """

    kind: Literal["gcs"]
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
    endpoint: Endpoint | None = None
    credentials: SecretReference | None = None
    # Signs in as nobody, as emulators want it.
    anonymous: bool = False


class AzureConfiguration(_Remote):
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


class CacheConfiguration(_Strict):
    """A folder for pieces of packs that were read, of so many GB (10⁹ bytes); a relative path as for a local store."""

    path: FilePath
    max_size_gb: Annotated[float, Field(gt=0, le=1_000_000)] = 10.0


class StoresConfiguration(_Strict):
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


def load(file: Path) -> StoresConfiguration:
    """The configuration in a file. Raises ConfigurationError, with what is wrong and none of the values."""
    try:
        found = parse(_bounded_text(file))
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    changes: dict[str, Any] = {"stores": {n: _placed(s, file.parent) for n, s in found.stores.items()}}
    if found.cache is not None:
        changes["cache"] = found.cache.model_copy(update={"path": file.parent / found.cache.path})
    return found.model_copy(update=changes)


def parse(text: str) -> StoresConfiguration:
    """The configuration, its paths as they are written. ConfigurationError, of one line."""
    try:
        fields = yaml.load(text, Loader=_Plain)  # noqa: S506 - a SafeLoader
    # Scalars that look like a date or a number and are none raise whatever their constructor does.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        raise ConfigurationError("not YAML, or a field is named twice, or it has aliases or tags") from None
    try:
        return StoresConfiguration.model_validate(fields)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        wrong = [_told(item["type"], item["loc"], item["msg"]) for item in errors[:_MOST_ERRORS]]
        more = [f"and {len(errors) - _MOST_ERRORS} more"] if len(errors) > _MOST_ERRORS else []
        raise ConfigurationError("; ".join([*wrong, *more])) from None


def _told(kind: str, where: tuple[int | str, ...], message: str) -> str:
    names = [str(name) if _SHOWN.fullmatch(str(name)) else "…" for name in where]
    if kind == "union_tag_invalid":  # pydantic repeats what it found
        message = "kind is one of local, s3, gcs, azure"
    return f"{'.'.join(names) or 'file'}: {message}"


def _placed(store: StoreConfiguration, folder: Path) -> StoreConfiguration:
    if isinstance(store, LocalConfiguration):
        return store.model_copy(update={"path": folder / store.path})
    return store


class _Plain(yaml.SafeLoader):
    """YAML of text, numbers, lists and mappings, a few deep.

    No mapping has a key twice: of two stores with one name, PyYAML would take the last. There are no aliases, by which
    a small file grows without end in merges and keys ("billion laughs"), and no tags.
    """

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or getattr(event, "tag", None):
            raise yaml.composer.ComposerError(problem="aliases and tags have no use here")
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.composer.ComposerError(problem="nothing is so deep here")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise yaml.constructor.ConstructorError(problem="a field is there twice, or is not text")
        return super().construct_mapping(node, deep)


def _bounded_text(file: Path) -> str:
    """Raises ConfigurationError."""
    try:
        # A pipe would keep whoever reads it waiting.
        if not stat.S_ISREG(file.stat().st_mode):
            raise ConfigurationError(f"{file} is not a file")
        with file.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigurationError(f"{file} is larger than {_MAX_BYTES} bytes")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} can't be read ({type(error).__name__})") from None


def _private_text(file: Path) -> str:
    """A file for its owner alone, or on a read-only mount, as orchestrators mount secrets. ConfigurationError."""
    try:
        open_to_others = file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        read_only = os.statvfs(file).f_flag & os.ST_RDONLY
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read ({type(error).__name__})") from None
    if open_to_others and not read_only:
        raise ConfigurationError(f"{file} may be read by others; run: chmod 600 {file}")
    return _bounded_text(file)
