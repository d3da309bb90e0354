"""Which providers there are: the YAML file that STRONGROOM_PROVIDERS names (docs/providers.md).

    primary: embedded
    replicas: [aws]
    providers:
      aws: {kind: aws, region: eu-west-1, prefix: strongroom}
      bao:
        kind: openbao
        endpoint: https://bao.example.com:8200
        sign_in: {method: approle, role_id: {file: PATH}, secret_id: {environment: NAME}}

The primary is always `embedded`, which has what the others do not: labels, stages, rotation, a search that obeys
permissions. A provider that is no replica is used by name alone. A credential stands in a file or in the environment;
the configuration says where.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.secrets.providers.document import translated
from services.shared import configuration
from services.shared.configuration import Endpoint, FilePath, Name, Remote, SecretReference, Strict

EMBEDDED: Literal["embedded"] = "embedded"
_MAX_PROVIDERS = 16
# What tells one place from another.
_PLACE = ("kind", "endpoint", "region", "project", "namespace", "mount", "prefix")

_Mount = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){0,3}$")]
_Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


class AwsConfiguration(Remote):
    """AWS Secrets Manager.

    Without keys the SDK finds them where AWS's tools look: environment, `profile`, role of the machine.
    """

    kind: Literal["aws"]
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    endpoint: Endpoint | None = None
    access_key: SecretReference | None = None
    secret_key: SecretReference | None = None
    session_token: SecretReference | None = None
    profile: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,64}$")] | None = None
    # The KMS key that encrypts them there; the account's own if not given.
    kms_key: Annotated[str, Field(pattern=r"^[A-Za-z0-9:/_-]{1,256}$")] | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key come together")
        if self.session_token is not None and self.secret_key is None:
            raise ValueError("session_token needs access_key and secret_key")
        return self


class GcpConfiguration(Remote):
    """Google Cloud Secret Manager.

    `credentials` is a service account's JSON key; without it, the application default credentials count.
    """

    kind: Literal["gcp"]
    project: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$|^[0-9]{6,20}$")]
    credentials: SecretReference | None = None
    # Where secrets are kept; Google chooses if there is none.
    locations: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")], ...], Field(max_length=8)] = ()
    endpoint: Endpoint | None = None
    # Signs in as nobody, as emulators want it.
    anonymous: bool = False

    @model_validator(mode="after")
    def _nobody(self) -> Self:
        if (self.endpoint or "").startswith("http://") and not self.anonymous:
            raise ValueError("a credential is never sent over plain HTTP: say anonymous: true, or use https://")
        return self


class AzureConfiguration(Remote):
    """Azure Key Vault.

    `endpoint` is `https://VAULT.vault.azure.net`. With `tenant` and `client_id` goes a `client_secret`; without them,
    DefaultAzureCredential looks for one: environment, workload or managed identity, the `az` command.
    """

    kind: Literal["azure"]
    endpoint: Endpoint
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,128}$")] | None = None
    client_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")] | None = None
    client_secret: SecretReference | None = None
    # Who signs in where: https://login.microsoftonline.com, or another cloud's.
    authority: Endpoint | None = None
    # Certificates that are trusted instead of the system's, for a vault and authority of one's own.
    ca: FilePath | None = None
    # Off for a vault under a name that is not Microsoft's.
    verify_challenge: bool = True

    @model_validator(mode="after")
    def _together(self) -> Self:
        if len({field is None for field in (self.tenant, self.client_id, self.client_secret)}) > 1:
            raise ValueError("tenant, client_id and client_secret come together")
        return self


class TokenSignIn(Strict):
    """With a token that somebody else renews."""

    method: Literal["token"]
    token: SecretReference


class AppRoleSignIn(Strict):
    """With the id of a role and a secret id."""

    method: Literal["approle"]
    role_id: SecretReference
    secret_id: SecretReference
    mount: _Mount = "approle"


class KubernetesSignIn(Strict):
    """With the token of the pod's service account, read anew at each sign-in: Kubernetes replaces it."""

    method: Literal["kubernetes"]
    role: _Role
    token_file: FilePath = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
    mount: _Mount = "kubernetes"


class OpenBaoConfiguration(Remote):
    """The KV engine, version 2, of OpenBao or HashiCorp Vault."""

    kind: Literal["openbao", "vault"]
    endpoint: Endpoint
    mount: _Mount = "secret"
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,255}$")] | None = None
    sign_in: Annotated[TokenSignIn | AppRoleSignIn | KubernetesSignIn, Field(discriminator="method")]
    # Certificates that are trusted instead of the system's.
    ca: FilePath | None = None


ProviderConfiguration = Annotated[
    AwsConfiguration | GcpConfiguration | AzureConfiguration | OpenBaoConfiguration,
    Field(discriminator="kind"),
]


class ProvidersConfiguration(Strict):
    """All providers by name: what is written to the primary follows in `replicas`."""

    primary: Literal["embedded"] = EMBEDDED
    replicas: tuple[Name, ...] = ()
    providers: dict[Name, ProviderConfiguration] = Field(default_factory=dict, max_length=_MAX_PROVIDERS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.replicas)) < len(self.replicas):
            raise ValueError("a provider is named twice among the replicas")
        if EMBEDDED in self.providers:
            raise ValueError("embedded is the primary, and needs no entry")
        if missing := set(self.replicas) - set(self.providers):
            raise ValueError(f"not among the providers: {', '.join(sorted(missing))}")
        places = {tuple(str(getattr(provider, field, "")) for field in _PLACE) for provider in self.providers.values()}
        if len(places) < len(self.providers):
            raise ValueError("two providers are at the same place: a replica must be elsewhere")
        return self


def load(file: Path | None) -> ProvidersConfiguration:
    """The configuration in a file, the embedded provider alone without one. Raises ConfigurationError."""
    return ProvidersConfiguration() if file is None else configuration.load(file, ProvidersConfiguration, translated)
