"""Which root keys there are beside the file: the YAML file that STRONGROOM_KMS names (docs/root-keys.md).

    primary: vault
    root_keys:
      vault: {kind: transit, endpoint: https://vault.example.com:8200, key: strongroom, token: {file: /run/token}}
      aws: {kind: aws-kms, key: alias/strongroom, region: eu-west-1}
      next: {kind: file, path: next.key}

It is read anew whenever a root key is needed, so a key that is added can be moved to without a restart.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.shared import configuration
from services.shared.configuration import Endpoint, FilePath, Name, SecretReference, Server, Strict

# The name of the key in STRONGROOM_ROOT_KEY_FILE.
FILE = "file"
_MAX_ROOT_KEYS = 16

_Mount = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,127}$")]
_Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class FileConfiguration(Strict):
    """A file like the first one; a relative path begins at the folder of the configuration."""

    kind: Literal["file"]
    path: FilePath


class AppRole(Strict):
    """Sign-in of a machine by role id and secret id."""

    role_id: _Role
    secret_id: SecretReference
    mount: _Mount = "approle"


class Kubernetes(Strict):
    """Sign-in of a pod by the token of its service account."""

    role: _Role
    token_file: FilePath = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: _Mount = "kubernetes"


class TransitConfiguration(Server):
    """A key of the transit engine of OpenBao or Vault, of a type that encrypts with additional data (aes256-gcm96).

    One of `token`, `approle` and `kubernetes` says how to sign in; `ca` is a file with the certificates to trust.
    """

    kind: Literal["transit"]
    endpoint: Endpoint
    key: _Role
    mount: _Mount = "transit"
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{0,255}$")] = ""
    ca: FilePath | None = None
    token: SecretReference | None = None
    approle: AppRole | None = None
    kubernetes: Kubernetes | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.token, self.approle, self.kubernetes)) != 1:
            raise ValueError("say how to sign in: one of token, approle and kubernetes")
        return self


class AwsKmsConfiguration(Server):
    """A symmetric key of AWS KMS: id, ARN or alias. Without keys the SDK looks where AWS's tools do."""

    kind: Literal["aws-kms"]
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_-]{1,256}$")]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    endpoint: Endpoint | None = None
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    session_token: SecretReference | None = None
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,64}$")] | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key come together")
        return self


RootKeyConfiguration = Annotated[
    FileConfiguration | TransitConfiguration | AwsKmsConfiguration, Field(discriminator="kind")
]


class RootKeysConfiguration(Strict):
    """All root keys by name, and with which a new installation begins."""

    primary: Name = FILE
    root_keys: Annotated[dict[Name, RootKeyConfiguration], Field(max_length=_MAX_ROOT_KEYS)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if FILE in self.root_keys:
            raise ValueError(f"{FILE} is the name of the key in STRONGROOM_ROOT_KEY_FILE: take another")
        if self.primary != FILE and self.primary not in self.root_keys:
            raise ValueError(f"primary is not among the root keys: {self.primary}")
        return self


def load(file: Path | None, root_key_file: Path) -> RootKeysConfiguration:
    """The configuration in a file, if there is one, and the key in its own file. Raises ConfigurationError."""
    found = RootKeysConfiguration() if file is None else configuration.load(file, RootKeysConfiguration)
    keys = {name: _placed(key, file) for name, key in found.root_keys.items()}
    keys[FILE] = FileConfiguration(kind="file", path=root_key_file)
    return found.model_copy(update={"root_keys": keys})


def _placed(key: RootKeyConfiguration, file: Path | None) -> RootKeyConfiguration:
    if isinstance(key, FileConfiguration) and file is not None:
        return key.model_copy(update={"path": file.parent / key.path})
    return key
